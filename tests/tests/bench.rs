//! The benches work: every line is measured once at tiny sizes. What it measures means nothing here; that
//! every tab got every change exactly once is checked by the load itself, which fails otherwise.

use std::path::PathBuf;

use concord_tests::bench::{self, Settings};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_can_be_measured() {
    let settings = Settings {
        rounds: 1,
        shrink: 400,
        only: None,
        relay: PathBuf::from(env!("CARGO_BIN_EXE_bench")),
    };
    let rows = Box::pin(bench::run(&settings, |_| {})).await.unwrap();
    assert!(rows.len() >= 11, "{} lines", rows.len());
    for row in &rows {
        assert!(
            !row.concord.is_empty() && !row.concord.contains("NaN"),
            "{row:?}"
        );
        assert!(
            !row.ratio.contains("NaN") && !row.ratio.contains("inf"),
            "{row:?}"
        );
    }
    let budgets = rows.iter().filter(|row| row.budget.is_some()).count();
    assert!(budgets >= 8, "{budgets} lines with a budget");
}
