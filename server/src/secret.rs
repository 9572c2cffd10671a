//! What only this server knows, and what it makes of that: keys for what nobody else may compute or read.

use std::fmt;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use aws_lc_rs::rand;

const BYTES: usize = 32;

/// Random bytes. They are told to nobody, and are the same for as long as the store is: what was made with them goes on to
/// be known after a restart.
#[derive(Clone)]
pub struct Secret([u8; BYTES]);

impl Secret {
    /// A new one.
    pub fn random() -> Result<Self, Unspecified> {
        let mut bytes = [0; BYTES];
        rand::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// As it was kept.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// To be kept.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A key for one purpose: from none of them another one follows.
    pub fn key(&self, purpose: &str) -> [u8; BYTES] {
        let secret = hmac::Key::new(HMAC_SHA256, &self.0);
        mac(&secret, &[purpose.as_bytes()])
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").finish_non_exhaustive()
    }
}

/// HMAC-SHA-256 of these parts, each told apart from the next.
pub fn mac(key: &hmac::Key, parts: &[&[u8]]) -> [u8; BYTES] {
    let mut mac = hmac::Context::with_key(key);
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    let tag = mac.sign();
    tag.as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_purpose_has_a_key_of_its_own_and_so_has_each_server() {
        let (one, other) = (Secret::random().unwrap(), Secret::random().unwrap());
        assert_ne!(one.key("a"), one.key("b"));
        assert_ne!(one.key("a"), other.key("a"));
        let kept = Secret::of(one.as_bytes()).unwrap();
        assert_eq!(kept.key("a"), one.key("a"));
        assert!(Secret::of(b"short").is_none());
        assert_eq!(format!("{one:?}"), "Secret { .. }");
    }

    #[test]
    fn parts_are_told_apart() {
        let key = hmac::Key::new(HMAC_SHA256, b"key");
        assert_ne!(mac(&key, &[b"ab", b"c"]), mac(&key, &[b"a", b"bc"]));
        assert_eq!(mac(&key, &[b"ab", b"c"]), mac(&key, &[b"ab", b"c"]));
    }
}
