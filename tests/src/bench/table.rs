//! How results are shown: a table on the terminal and, the same, in the README.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// The table lies between these lines of the README.
const START: &str = "<!-- bench:start -->";
const END: &str = "<!-- bench:end -->";

/// One line of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// Concord's figure.
    pub concord: String,
    /// What it is compared with.
    pub baseline: String,
    /// The ratio of the two; empty where there is nothing to divide by.
    pub ratio: String,
    /// What was promised, with whether it holds; `None` where the line only informs.
    pub budget: Option<(String, bool)>,
}

/// The rows as a Markdown table, with what they were measured on.
pub fn markdown(rows: &[Row], rounds: usize) -> String {
    let mut table = format!("Measured on {}, {}; ", machine(), today());
    match rounds {
        1 => table.push_str("a single round.\n\n"),
        _ => {
            let _ = write!(
                table,
                "medians of {rounds} rounds that alternate with the baseline's, least–most.\n\n"
            );
        }
    }
    table.push_str(
        "| what | Concord | compared with | ratio | budget | |\n|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let (budget, verdict) = match &row.budget {
            Some((text, true)) => (text.as_str(), "met"),
            Some((text, false)) => (text.as_str(), "**missed**"),
            None => ("", ""),
        };
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {budget} | {verdict} |",
            row.what, row.concord, row.baseline, row.ratio
        );
    }
    table
}

/// Puts `table` between the markers of the file at `path`.
pub fn write_into(path: &Path, table: &str) -> Result<()> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let replaced = replace(&text, table)
        .with_context(|| format!("{} has no `{START}` … `{END}`", path.display()))?;
    std::fs::write(path, replaced).with_context(|| format!("writing {}", path.display()))
}

fn replace(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(START)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{START}\n{table}{END}{after}"))
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or(std::env::consts::ARCH, |(_, model)| model.trim());
    format!("{cores} cores ({model})")
}

fn today() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let (year, month, day) = civil(now.as_secs() / 86_400);
    format!("{year}-{month:02}-{day:02}")
}

/// Days since 1970 as a Gregorian date (H. Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (year_of_era + era * 400 + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_at_the_edges() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(19_722), (2023, 12, 31));
    }

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let text = format!("before\n{START}\nold\n{END}\nafter\n");
        let new = replace(&text, "new\n").unwrap();
        assert_eq!(new, format!("before\n{START}\nnew\n{END}\nafter\n"));
        assert_eq!(replace(&new, "new\n").unwrap(), new);
        assert_eq!(replace("no markers", "new"), None);
    }

    #[test]
    fn a_missed_budget_is_said() {
        let row = Row {
            what: "w".into(),
            concord: "c".into(),
            baseline: "b".into(),
            ratio: "0.5".into(),
            budget: Some(("≥ 0.8".into(), false)),
        };
        assert!(markdown(&[row], 3).contains("| w | c | b | 0.5 | ≥ 0.8 | **missed** |"));
    }
}
