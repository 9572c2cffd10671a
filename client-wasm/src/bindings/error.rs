//! Errors as JavaScript sees them.

use std::error::Error;

use concord_shared::ids::IdError;
use js_sys::Reflect;
use wasm_bindgen::JsValue;

use crate::replica::{ReplicaError, SessionError, UndoError};

/// An error on its way to JavaScript.
#[derive(Debug)]
pub struct Thrown {
    code: &'static str,
    message: String,
}

impl Thrown {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// With all of its sources in the message.
    pub(super) fn of(error: impl Coded) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            message.push_str(": ");
            message.push_str(&error.to_string());
            source = error.source();
        }
        Self::new(error.code(), message)
    }
}

impl From<Thrown> for JsValue {
    fn from(thrown: Thrown) -> Self {
        let error = js_sys::Error::new(&thrown.message);
        // On an object that was made just now this can't fail.
        let _infallible = Reflect::set(&error, &"code".into(), &thrown.code.into());
        error.into()
    }
}

/// An error that has a stable name.
pub(super) trait Coded: Error {
    fn code(&self) -> &'static str;
}

impl Coded for automerge::AutomergeError {
    fn code(&self) -> &'static str {
        "automerge"
    }
}

impl Coded for IdError {
    fn code(&self) -> &'static str {
        "bad-id"
    }
}

impl Coded for ReplicaError {
    fn code(&self) -> &'static str {
        match self {
            Self::Message { source, .. } => source.code().as_str(),
            Self::Chunk { source, .. } => source.code().as_str(),
            Self::Apply { .. } => "bad-change",
            Self::Load { .. } | Self::Document { .. } => "bad-document",
            Self::NotConnected { .. } => "not-connected",
        }
    }
}

impl Coded for UndoError {
    fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "not-found",
            Self::NotOwn { .. } => "not-own",
            Self::Edit { .. } => "automerge",
        }
    }
}

impl Coded for SessionError {
    fn code(&self) -> &'static str {
        match self {
            Self::Wire(_) => "bad-frame",
            Self::Server { .. } => "server",
            Self::Unexpected { .. } | Self::WrongTarget { .. } => "protocol",
            Self::Version { .. } => "unsupported-protocol",
        }
    }
}
