//! Base58 with a checksum, as document ids and heads are written: the payload, and the first four bytes of its
//! double SHA-256.
//!
//! The crate `bs58` has it too, and brings a second version of `sha2` for it: 8 kB of a browser's download.

use sha2::{Digest as _, Sha256};

const CHECKSUM_BYTES: usize = 4;

pub(crate) fn encode(payload: &[u8]) -> String {
    let bytes = [payload, &checksum(payload)].concat();
    bs58::encode(bytes).into_string()
}

/// The payload, if it has `N` bytes and its checksum is right.
pub(crate) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    // No longer than that, whatever the text's length.
    let mut bytes = [0; 64];
    let length = bs58::decode(text)
        .onto(bytes.get_mut(..N + CHECKSUM_BYTES)?)
        .ok()?;
    let (payload, found) = bytes.get(..length)?.split_first_chunk::<N>()?;
    (found == checksum(payload)).then_some(*payload)
}

fn checksum(payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(Sha256::digest(payload)).into();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let text = encode(&[7; 32]);
        assert_eq!(decode(&text), Some([7; 32]));
        assert_eq!(decode::<31>(&text), None);
        assert_eq!(decode::<33>(&text), None);
        assert_eq!(decode::<32>(&text[1..]), None);
        let other = if text.ends_with('2') { "3" } else { "2" };
        let spoiled = format!("{}{other}", &text[..text.len() - 1]);
        assert_eq!(decode::<32>(&spoiled), None);
        assert_eq!(decode::<32>(&"2".repeat(10_000)), None);
        assert_eq!(decode::<32>("0OIl"), None);
    }
}
