//! Concord server.
