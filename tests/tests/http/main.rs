//! Promise: documents are read and written as JSON, beside those who edit them live, and all merges.
//!
//! Every test runs the built server and speaks HTTP to it by a stock client. `story` has tabs and programs
//! write at the same time and looks at what became of each field; `values` holds JSON in against JSON out, and
//! views against a load of the stored bytes; `history` what is told of changes and versions
//! against Automerge, across compactions and restarts; `inspecting` what the inspector asks for besides; `authentication` who is let in, `timing` that nobody learns by the clock what is not for them, `audit` what is written down of it all, `jwks` by which keys, `renewal` for how long, `roles` what they may do, `listing` what they are told of, `webhook` by whose word; `transport` TLS, `headers` what browsers are told; `requests` has
//! each status, header and problem that is documented.
//!
//! It can't pass by accident: the story demands that every value which is there in the end was written, and was not
//! written over by somebody who had seen it; and a world in which nothing was written at once is an error.

use std::ops::Range;

mod audit;
mod authentication;
mod deleting;
mod durability;
mod events;
mod headers;
mod history;
mod import;
mod inspecting;
mod jwks;
mod listing;
mod openapi;
mod renewal;
mod representations;
mod requests;
mod rest;
mod retries;
mod roles;
mod story;
mod surface;
mod timing;
mod transport;
mod values;
mod webhook;

/// `CONCORD_TEST_SEED` alone if it is set; else so many, in the long profile more.
fn seeds(some: u64, many: u64) -> Range<u64> {
    let is_long = std::env::var_os("CONCORD_TEST_LONG").is_some();
    match std::env::var("CONCORD_TEST_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("a number");
            seed..seed + 1
        }
        Err(_) => 0..if is_long { many } else { some },
    }
}
