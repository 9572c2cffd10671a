//! Views: documents as values, for those who have no replica (HTTP, streams of events, history).
//!
//! A view is one more peer of a document, in the server's own process: what it shows came to it as it comes to any
//! client, after it was durable, and what is written through it is admitted as any client's change is. So the relay
//! knows nothing of views, and pays nothing for them where nobody looks.
//!
//! - [`core`]: the document with what is known of its relay; pure.
//! - [`task`]: one for each open view: takes in what the relay sends, in batches, and runs jobs on it, all on blocking
//!   threads.
//! - [`marks`]: which requests were carried out before.
//! - `order`: in which order the relay admitted changes.
//! - `watch`: what is watched of a document, as events; `feed`: their way to one watcher.
//! - [`cache`]: which views are open, within a budget of memory.

pub mod cache;
pub mod core;
mod feed;
pub mod marks;
mod order;
mod rebase;
mod task;
mod watch;

pub use cache::{ViewError, Views};
pub use core::{Author, Core, Failure};
pub use feed::{End, Events};
pub use watch::{Event, Kind, Place, TooManyPlaces};

/// With this the server itself opens documents, for those whose grants were looked at. Only views have it.
#[derive(Debug)]
pub struct Own(());

#[cfg(test)]
impl Own {
    /// For tests of what is below the grants.
    pub(crate) fn of_tests() -> Self {
        Self(())
    }
}

#[cfg(test)]
mod tests;
