//! What JavaScript sees: one file for each exported class. `client-wasm/js/src/wasm.ts` says the same in
//! TypeScript, with the meaning of each method.
//!
//! Every exported method takes `&self`, holds its borrow only while no JavaScript runs, and never calls back:
//! so a method that is entered while another is on the stack can't be. Errors are JavaScript `Error`s with a
//! `code`.

#![expect(
    clippy::needless_pass_by_value,
    reason = "what JavaScript passes is a copy, and so owned"
)]

mod backoff;
pub mod cbor;
mod connection;
mod convert;
mod error;
mod patch;
mod replica;

use concord_shared::ids::DocumentId;
use wasm_bindgen::prelude::wasm_bindgen;

use error::Thrown;

/// A document's id out of 16 random bytes.
#[wasm_bindgen(js_name = documentId)]
pub fn document_id(random: &[u8]) -> Result<String, Thrown> {
    let uuid = <[u8; 16]>::try_from(random).map_err(|_| Thrown::new("bad-id", "16 bytes"))?;
    Ok(DocumentId::from_uuid(uuid).as_str().to_owned())
}

/// The id in an id or `automerge:` URL.
#[wasm_bindgen(js_name = parseDocumentId)]
pub fn parse_document_id(text: &str) -> Result<String, Thrown> {
    let id = if text.starts_with("automerge:") {
        DocumentId::parse_url(text)
    } else {
        DocumentId::new(text)
    };
    Ok(id.map_err(Thrown::of)?.as_str().to_owned())
}
