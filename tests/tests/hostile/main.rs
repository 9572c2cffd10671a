//! Promise: no input takes the server down, or another client with it.
//!
//! In every test two honest clients edit one document through the real server process while others
//! send it what has broken such servers before, what they must not send, or nothing at all. Each
//! hostile connection must be refused with the stable code that is stated here, counted under it, and
//! closed, within seconds; or be served on, where it did no harm. The honest ones must never wait
//! longer than [`world::ANSWER`] for an acknowledgement nor lose their connection, and at the end they,
//! each other's edits and the stored document are equal. The server's memory stays below a bound that
//! each test states, and its log must not tell of a panic.
//!
//! It can't pass by accident: the honest clients must have made edits while it lasted, every case
//! demands one refusal more under its own code, and a connection that counts as served on must answer
//! a message that is sent after what is tested.

#![cfg(target_os = "linux")] // Memory and sockets are read from /proc.

mod backoff;
mod bytes;
mod changes;
mod inputs;
mod mutations;
mod slow;
mod uploads;
mod world;
