//! Where a page of the list of documents ended, so that only the server can read it.
//!
//! A page may end behind a document that is not for whoever asks, whose id they must not learn; and who could say where a
//! page begins could find all ids by halving. So a cursor is sealed, and counts for the one to whom it was given.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use concord_shared::ids::{DOCUMENT_ID_BYTES, DocumentId, PrincipalId};

use crate::secret::Secret;

/// Ends an id; what follows is filling, so that all cursors have the same length.
const END: u8 = 1;

/// Makes cursors, and reads them. Cheap to clone.
#[derive(Clone)]
pub struct Cursors(Arc<RandomizedNonceKey>);

impl Cursors {
    /// Those that this secret reads.
    pub fn new(secret: &Secret) -> Result<Self, Unspecified> {
        let key = RandomizedNonceKey::new(&AES_256_GCM_SIV, &secret.key("cursors"))?;
        Ok(Self(Arc::new(key)))
    }

    /// For somebody whose page ended behind a document.
    pub fn seal(&self, who: &PrincipalId, last: &DocumentId) -> Result<String, Unspecified> {
        let mut sealed = last.as_str().as_bytes().to_vec();
        sealed.push(END);
        sealed.resize(DOCUMENT_ID_BYTES + 1, 0);
        let nonce = self.0.seal_in_place_append_tag(of(who), &mut sealed)?;
        sealed.extend_from_slice(nonce.as_ref());
        Ok(BASE64_URL_SAFE_NO_PAD.encode(sealed))
    }

    /// Behind which document it is; `None` for what this server did not give them.
    pub fn open(&self, who: &PrincipalId, text: &str) -> Option<DocumentId> {
        let mut sealed = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let at = sealed.len().checked_sub(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(&sealed.split_off(at)).ok()?;
        let opened = self.0.open_in_place(nonce, of(who), &mut sealed).ok()?;
        let end = opened.iter().rposition(|byte| *byte == END)?;
        let id = std::str::from_utf8(opened.get(..end)?).ok()?;
        DocumentId::new(id).ok()
    }
}

impl fmt::Debug for Cursors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursors").finish_non_exhaustive()
    }
}

fn of(who: &PrincipalId) -> Aad<&[u8]> {
    Aad::from(who.as_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(name: &str) -> PrincipalId {
        PrincipalId::new(name).unwrap()
    }

    #[test]
    fn a_cursor_is_read_by_its_server_for_whom_it_was_made_and_by_nobody_else() {
        let secret = Secret::random().unwrap();
        let cursors = Cursors::new(&secret).unwrap();
        let (ann, eve) = (who("ann"), who("eve"));
        for id in ["a", "4NMNnkMhL8jXrdJ9jamS58PAVdXu", &"ü".repeat(32)] {
            let id = DocumentId::new(id).unwrap();
            let text = cursors.seal(&ann, &id).unwrap();
            let again = Cursors::new(&secret).unwrap();
            assert_eq!(again.open(&ann, &text), Some(id.clone()));
            assert_eq!(cursors.open(&eve, &text), None);
            let other = Cursors::new(&Secret::random().unwrap()).unwrap();
            assert_eq!(other.open(&ann, &text), None);
            for at in 0..text.len() {
                let mut bytes = text.clone().into_bytes();
                bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
                let changed = String::from_utf8(bytes).unwrap();
                assert_eq!(cursors.open(&ann, &changed), None, "{at}");
                assert_eq!(cursors.open(&ann, &text[..at]), None, "{at}");
            }
        }
        for bad in ["", "4NMNnkMhL8jXrdJ9jamS58PAVdXu", "ü", &"A".repeat(40)] {
            assert_eq!(cursors.open(&ann, bad), None, "{bad}");
        }
    }

    #[test]
    fn a_cursor_says_neither_which_document_nor_whether_it_is_the_same() {
        let cursors = Cursors::new(&Secret::random().unwrap()).unwrap();
        let seal = |id: &str| {
            let id = DocumentId::new(id).unwrap();
            cursors.seal(&who("ann"), &id).unwrap()
        };
        let id = "4NMNnkMhL8jXrdJ9jamS58PAVdXu";
        assert_ne!(seal(id), seal(id));
        for other in ["b", "board 2026", &"x".repeat(DOCUMENT_ID_BYTES)] {
            assert_eq!(seal(id).len(), seal(other).len());
        }
    }
}
