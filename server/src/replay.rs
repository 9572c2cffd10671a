//! Histories held against code: the changes of one document, applied again, step by step or in many orders.
//!
//! Two replicas that hold the same changes are equal, in whatever order these came. A history from production
//! is the best test of that there is, for this project and for any other that reads or writes Automerge
//! documents. Everything here is pure but for reading files and stores; `concord replay` and
//! `concord record` are made of it.
//!
//! - [`Recording`]: the changes, in the order in which they arrived, with what is known of each arrival. Out
//!   of an `.automerge` file, a [`Store`](crate::store::Store), or a recording [`file`](mod@file), whose format is in
//!   PROTOCOL.md ("Recordings").
//! - [`Replay`]: one step for each change, and the document's JSON after it.
//! - [`order`]: the orders in which the changes could have arrived.
//! - [`Subject`]: what is held against the history; [`AutomergeSubject`] is Automerge itself.
//! - [`check`]: whether a subject comes to one state in all orders, and if not, the smallest prefix of the
//!   history at which two of them part.

mod builder;
mod compare;
mod content;
pub mod file;
pub mod order;
mod recording;
mod stepper;
mod subject;

#[cfg(test)]
mod tests;

pub use builder::{Builder, ChangeError};
pub use compare::{Fault, Outcome, Parting, Player, check};
pub use content::Content;
pub use file::{Ending, FileError};
pub use order::Order;
pub use recording::{LoadError, Loaded, Recorded, Recording, made_ms};
pub use stepper::{Replay, ReplayError, Step};
pub use subject::{AutomergeState, AutomergeSubject, Subject, SubjectError};
