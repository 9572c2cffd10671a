//! What a Concord server and its clients agree on.

pub mod ids;
