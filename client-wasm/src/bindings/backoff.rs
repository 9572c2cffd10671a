//! [`Backoff`], in milliseconds.

use std::cell::RefCell;
use std::time::Duration;

use wasm_bindgen::prelude::wasm_bindgen;

use crate::replica;

/// How long to wait before the next attempt to connect.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Backoff(RefCell<replica::Backoff>);

#[wasm_bindgen]
impl Backoff {
    /// See [`replica::Backoff::new`]; milliseconds.
    #[wasm_bindgen(constructor)]
    pub fn new(base_ms: u32, cap_ms: u32) -> Self {
        let ms = |ms: u32| Duration::from_millis(ms.into());
        Self(RefCell::new(replica::Backoff::new(ms(base_ms), ms(cap_ms))))
    }

    /// Milliseconds. `random` is in [0, 1); `suggested` is what the server asked for.
    pub fn next(&self, random: f64, suggested_ms: Option<u32>) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "saturates, and 53 bits of jitter are enough"
        )]
        let random = (random * u64::MAX as f64) as u64;
        let suggested = suggested_ms.map(|ms| Duration::from_millis(ms.into()));
        let wait = self.0.borrow_mut().next(random, suggested);
        u32::try_from(wait.as_millis()).unwrap_or(u32::MAX)
    }

    /// The connection proved itself.
    pub fn reset(&self) {
        self.0.borrow_mut().reset();
    }
}
