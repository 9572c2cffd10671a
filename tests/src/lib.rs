//! What no single crate can show. The library holds what the tests and benches share.

pub mod simulation;
