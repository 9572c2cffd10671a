//! Work that takes milliseconds, out of the way of the threads that all documents and connections share.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// Does the work where it holds nobody else up; right here where there is nobody else. Handing over costs
/// some tens of microseconds, so this is not for every keystroke.
pub(super) fn aside<R>(work: impl FnOnce() -> R) -> R {
    let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    if matches!(flavor, Ok(RuntimeFlavor::MultiThread)) {
        block_in_place(work)
    } else {
        work()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use super::aside;

    /// One thread for all tasks; the first one's work ends when the second one has run.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn other_tasks_go_on_meanwhile() {
        let (done, wait) = sync_channel(1);
        let first = tokio::spawn(async move {
            let limit = Duration::from_secs(10);
            aside(|| wait.recv_timeout(limit))
        });
        let second = tokio::spawn(async move { done.send(()) });
        first.await.expect("no panic").expect("the second ran");
        second.await.expect("no panic").expect("the first waited");
    }

    #[tokio::test]
    async fn it_is_done_here_where_there_is_one_thread_alone() {
        assert_eq!(aside(|| 7), 7);
    }
}
