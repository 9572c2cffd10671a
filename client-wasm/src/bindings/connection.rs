//! The protocol state of one WebSocket connection.

use std::cell::RefCell;

use bytes::Bytes;
use concord_shared::ids::{DocumentId, PeerId, SessionId, StorageId};
use concord_shared::limits::Limits;
use js_sys::Uint8Array;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use super::convert::object;
use super::error::Thrown;
use crate::replica::{Incoming, Joining, Open};

/// See [`crate::replica::Joining`] and [`Open`].
#[wasm_bindgen]
#[derive(Debug)]
pub struct Connection(RefCell<Phase>);

#[derive(Debug)]
enum Phase {
    New {
        us: PeerId,
        storage: Option<StorageId>,
    },
    Joining(Joining),
    Open(Open),
    /// An error ended it.
    Over,
}

#[wasm_bindgen]
impl Connection {
    /// `storage` names what this browser keeps; without it the server forgets us at once.
    #[wasm_bindgen(constructor)]
    pub fn new(peer: &str, storage: Option<String>) -> Result<Self, Thrown> {
        let storage = storage.as_deref().map(StorageId::new).transpose();
        Ok(Self(RefCell::new(Phase::New {
            us: PeerId::new(peer).map_err(Thrown::of)?,
            storage: storage.map_err(Thrown::of)?,
        })))
    }

    /// The first frame.
    pub fn join(&self) -> Result<Uint8Array, Thrown> {
        match self.0.replace(Phase::Over) {
            Phase::New { us, storage } => {
                let (joining, frame) = Joining::start(us, storage);
                self.0.replace(Phase::Joining(joining));
                Ok(Uint8Array::from(&*frame))
            }
            phase => {
                self.0.replace(phase);
                Err(Thrown::new("protocol", "joined already"))
            }
        }
    }

    /// What a frame of the server's means. After an error the connection is of no use.
    pub fn receive(&self, frame: Vec<u8>) -> Result<JsValue, Thrown> {
        let frame = Bytes::from(frame);
        let limits = Limits::default();
        match self.0.replace(Phase::Over) {
            Phase::Joining(joining) => {
                let open = joining.receive(&frame, &limits).map_err(Thrown::of)?;
                let storage = open.server_storage().map(StorageId::as_str);
                let met = object(&[
                    ("type", "open".into()),
                    ("server", open.server().as_str().into()),
                    ("storage", storage.into()),
                ]);
                self.0.replace(Phase::Open(open));
                Ok(met)
            }
            Phase::Open(open) => {
                let incoming = open.receive(&frame, &limits).map_err(Thrown::of)?;
                self.0.replace(Phase::Open(open));
                Ok(shown(&incoming))
            }
            phase @ (Phase::New { .. } | Phase::Over) => {
                self.0.replace(phase);
                Err(Thrown::new("protocol", "not joined"))
            }
        }
    }

    /// Our name on it, and the server's; once it is open.
    pub fn peers(&self) -> Result<Vec<String>, Thrown> {
        self.when_open(|open| vec![open.us().to_string(), open.server().to_string()])
    }

    /// A frame with an application's message for whoever has the document open; `data` is CBOR.
    pub fn ephemeral(
        &self,
        document: &str,
        author: &str,
        session: &str,
        count: f64,
        data: Vec<u8>,
    ) -> Result<Uint8Array, Thrown> {
        let document = DocumentId::new(document).map_err(Thrown::of)?;
        let author = PeerId::new(author).map_err(Thrown::of)?;
        let session = SessionId::new(session).map_err(Thrown::of)?;
        self.when_open(|open| {
            let count = super::convert::whole(count);
            let frame = open.ephemeral(&document, &author, &session, count, &data.into());
            Uint8Array::from(&*frame)
        })
    }
}

impl Connection {
    fn when_open<T>(&self, then: impl FnOnce(&Open) -> T) -> Result<T, Thrown> {
        match &*self.0.borrow() {
            Phase::Open(open) => Ok(then(open)),
            _ => Err(Thrown::new("protocol", "not open")),
        }
    }
}

fn shown(incoming: &Incoming) -> JsValue {
    match incoming {
        Incoming::Sync { document, data } => object(&[
            ("type", "sync".into()),
            ("document", document.as_str().into()),
            ("data", Uint8Array::from(&**data).into()),
        ]),
        Incoming::Unavailable { document } => object(&[
            ("type", "unavailable".into()),
            ("document", document.as_str().into()),
        ]),
        Incoming::Ephemeral {
            document,
            author,
            session,
            count,
            data,
        } => object(&[
            ("type", "ephemeral".into()),
            ("document", document.as_str().into()),
            ("author", author.as_str().into()),
            ("session", session.as_str().into()),
            ("count", super::convert::number(*count)),
            ("data", Uint8Array::from(&**data).into()),
        ]),
        Incoming::Leave => object(&[("type", "leave".into())]),
        Incoming::Ignored => object(&[("type", "ignored".into())]),
    }
}
