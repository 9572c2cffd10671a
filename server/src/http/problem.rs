//! What went wrong, as a problem document (RFC 9457) with a stable code.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use concord_shared::code::ErrorCode;
use concord_shared::json::{EditError, WriteError};
use concord_shared::path::{NoPlace, ParsePathError};
use serde::Serialize;
use utoipa::ToSchema;

use super::body::GZIP;
use super::openapi::problems::ProblemCode;
use crate::limits::Limited;
use crate::limits::ledger::OverQuota;
use crate::view::ViewError;

/// When to try again what can't be done now: most of what is in the way is done in a moment.
const RETRY_AFTER_SECONDS: &str = "1";

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal, $status:ident;)*) => {
        /// Why a request was not carried out: stable kebab-case text, and a status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $($(#[doc = $doc])* $name,)*
            /// As on the wire: a change was refused, or the server can't.
            Wire(ErrorCode),
        }

        impl Code {
            /// Every code that is told, for documentation.
            pub fn all() -> impl Iterator<Item = Self> {
                let wire = ErrorCode::ALL.iter().copied().filter(|code| told(*code).is_some());
                [$(Self::$name,)*].into_iter().chain(wire.map(Self::Wire))
            }

            /// What it means, for documentation.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),*).trim_ascii_start(),)*
                    Self::Wire(code) => code.meaning(),
                }
            }

            /// As it is told.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Wire(code) => wire(code).0.as_str(),
                }
            }

            /// With which it is told.
            pub fn status(self) -> StatusCode {
                match self {
                    $(Self::$name => StatusCode::$status,)*
                    Self::Wire(code) => wire(code).1,
                }
            }
        }
    };
}

codes! {
    /// The document is not here.
    NoDocument = "no-document", NOT_FOUND;
    /// The document was deleted, and it is too late to take that back.
    Purged = "purged", GONE;
    /// The path leads nowhere in the document.
    NoValue = "no-value", NOT_FOUND;
    /// There is nothing at this address.
    NoRoute = "no-route", NOT_FOUND;
    /// The address does not take this method.
    Method = "method-not-allowed", METHOD_NOT_ALLOWED;
    /// The id is none.
    BadId = "bad-id", BAD_REQUEST;
    /// The path is no JSON Pointer.
    BadPath = "bad-path", BAD_REQUEST;
    /// A parameter of the query.
    BadQuery = "bad-query", BAD_REQUEST;
    /// A header can't be read.
    BadHeader = "bad-header", BAD_REQUEST;
    /// The body is not JSON.
    BadJson = "bad-json", BAD_REQUEST;
    /// The body did not come to its end.
    BadBody = "bad-body", BAD_REQUEST;
    /// The body is JSON, and no JSON Patch.
    BadPatch = "bad-patch", BAD_REQUEST;
    /// The body is of another type than this takes.
    MediaType = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE;
    /// The body is compressed in another way than this takes.
    ContentCoding = "unsupported-coding", UNSUPPORTED_MEDIA_TYPE;
    /// None of the types that are accepted is made here.
    NotAcceptable = "not-acceptable", NOT_ACCEPTABLE;
    /// The body has more bytes than it may.
    BodyTooLarge = "body-too-large", PAYLOAD_TOO_LARGE;
    /// Only an object can be a document.
    NotAnObject = "not-an-object", UNPROCESSABLE_ENTITY;
    /// The value has more levels than a document may.
    TooDeep = "too-deep", UNPROCESSABLE_ENTITY;
    /// The body has more values than it may, or a patch reads or writes more.
    TooManyValues = "too-many-values", UNPROCESSABLE_ENTITY;
    /// Only arrays and objects can be added to.
    NotAContainer = "not-a-container", CONFLICT;
    /// An operation of a patch can't be carried out; nothing of the patch was.
    PatchFailed = "patch-failed", CONFLICT;
    /// A `test` of a patch found something else; nothing of the patch was carried out.
    TestFailed = "test-failed", CONFLICT;
    /// The root can't be removed.
    Root = "root", CONFLICT;
    /// The version that was to be read is not part of the document.
    NoVersion = "no-version", NOT_FOUND;
    /// The change is not part of the document.
    NoChange = "no-change", NOT_FOUND;
    /// The version that was named is not part of the document; or what was to be there, whatever it is, is not.
    UnknownHeads = "unknown-heads", PRECONDITION_FAILED;
    /// The document is there, and was to be new.
    Exists = "exists", PRECONDITION_FAILED;
    /// An uploaded document builds on changes that are neither in it nor here.
    MissingDeps = "missing-deps", UNPROCESSABLE_ENTITY;
    /// Another request was carried out under this key.
    KeyReused = "idempotency-key-reused", UNPROCESSABLE_ENTITY;
    /// Nobody said who asks.
    Unauthenticated = "unauthenticated", UNAUTHORIZED;
    /// The token is longer than one may be.
    TokenTooLarge = "token-too-large", UNAUTHORIZED;
    /// The token is no signed JSON Web Token.
    TokenMalformed = "token-malformed", UNAUTHORIZED;
    /// The token is not signed, or in a way that is not taken.
    TokenAlgorithm = "token-algorithm", UNAUTHORIZED;
    /// The token is signed by a key that is not known.
    TokenUnknownKey = "token-unknown-key", UNAUTHORIZED;
    /// The token's signature is wrong.
    TokenSignature = "token-signature", UNAUTHORIZED;
    /// The token is from another issuer.
    TokenIssuer = "token-issuer", UNAUTHORIZED;
    /// The token is for another audience.
    TokenAudience = "token-audience", UNAUTHORIZED;
    /// The token has no expiry, no subject, or one that can't be used.
    TokenClaims = "token-claims", UNAUTHORIZED;
    /// The token has expired.
    TokenExpired = "token-expired", UNAUTHORIZED;
    /// The token is not valid yet.
    TokenNotYet = "token-not-yet-valid", UNAUTHORIZED;
    /// Whoever asks may do less than that with the document, or may not make any.
    NotAllowed = "not-allowed", FORBIDDEN;
    /// The application that decides who may do what does not answer.
    Undecided = "undecided", SERVICE_UNAVAILABLE;
    /// Whoever asks has as many connections that stay as one caller may.
    TooManyConnections = "too-many-connections", TOO_MANY_REQUESTS;
    /// The body came more slowly than any line is.
    SlowBody = "slow-body", REQUEST_TIMEOUT;
    /// No list says who may do what: nobody has to say who they are here, or an application decides.
    OpenToAll = "open-to-all", CONFLICT;
    /// No list of who may do what.
    BadAccessList = "bad-access-list", UNPROCESSABLE_ENTITY;
    /// A page of another site wants to change something, and may not.
    ForeignOrigin = "foreign-origin", FORBIDDEN;
    /// The server is not known by the name under which it was asked.
    UnknownHost = "unknown-host", MISDIRECTED_REQUEST;
}

/// With which status a code of the wire is told; `None` for those that are about connections and frames.
fn told(code: ErrorCode) -> Option<StatusCode> {
    match code {
        code if code.is_about_a_change() => Some(StatusCode::UNPROCESSABLE_ENTITY),
        ErrorCode::TooManyDocuments | ErrorCode::Overloaded | ErrorCode::ShuttingDown => {
            Some(StatusCode::SERVICE_UNAVAILABLE)
        }
        ErrorCode::BackOff | ErrorCode::RateLimited => Some(StatusCode::TOO_MANY_REQUESTS),
        ErrorCode::OverQuota => Some(StatusCode::FORBIDDEN),
        ErrorCode::Internal | ErrorCode::StorageFailed => Some(StatusCode::INTERNAL_SERVER_ERROR),
        _ => None,
    }
}

/// How a code of the wire is told. One that means nothing here is a fault of the server.
fn wire(code: ErrorCode) -> (ErrorCode, StatusCode) {
    let known = told(code).map(|status| (code, status));
    known.unwrap_or((ErrorCode::Internal, StatusCode::INTERNAL_SERVER_ERROR))
}

/// A request that was not carried out.
#[derive(Debug)]
pub struct Problem {
    pub(super) code: Code,
    /// For people.
    detail: String,
    /// Where in the document, as a JSON Pointer.
    path: Option<String>,
    /// In how many seconds to try again.
    retry_after: Option<u64>,
}

/// Why a request was not carried out (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Body<'a> {
    /// A name for the code: `urn:concord:problem:` and the code.
    #[schema(pattern = "^urn:concord:problem:[a-z-]+$")]
    r#type: String,
    /// The status in words.
    title: &'a str,
    /// The status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What programs go by: a code keeps its name.
    #[schema(value_type = ProblemCode)]
    code: &'a str,
    /// What is to be said of this case, for people.
    #[serde(skip_serializing_if = "str::is_empty")]
    #[schema(required = false)]
    detail: &'a str,
    /// Where in the document, as a JSON Pointer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    path: Option<&'a str>,
}

impl Problem {
    /// Whether it is for this.
    pub(super) fn is(&self, code: Code) -> bool {
        self.code == code
    }

    /// With what there is to say of it.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            path: None,
            retry_after: None,
        }
    }

    /// It may be tried again in so many seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// About this place in the document.
    #[must_use]
    pub fn at(mut self, path: &(impl ToString + ?Sized)) -> Self {
        self.path = Some(path.to_string());
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let body = Body {
            r#type: format!("urn:concord:problem:{}", self.code.as_str()),
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            code: self.code.as_str(),
            detail: &self.detail,
            path: self.path.as_deref(),
        };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let content_type = HeaderValue::from_static("application/problem+json");
        let mut response = (status, [(header::CONTENT_TYPE, content_type)], body).into_response();
        // What would be taken (RFC 9110, section 12.5.3), from whom (RFC 6750, section 3), and when.
        let challenge = |challenge| {
            (
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static(challenge),
            )
        };
        let more = match self.code {
            Code::Unauthenticated => Some(challenge("Bearer realm=\"concord\"")),
            _ if status == StatusCode::UNAUTHORIZED => Some(challenge(
                "Bearer realm=\"concord\", error=\"invalid_token\"",
            )),
            Code::ContentCoding => Some((header::ACCEPT_ENCODING, HeaderValue::from_static(GZIP))),
            _ if status == StatusCode::SERVICE_UNAVAILABLE => Some((
                header::RETRY_AFTER,
                HeaderValue::from_static(RETRY_AFTER_SECONDS),
            )),
            _ => None,
        };
        response.headers_mut().extend(more);
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<OverQuota> for Problem {
    fn from(over: OverQuota) -> Self {
        Self::new(Code::Wire(ErrorCode::OverQuota), over.to_string())
    }
}

impl From<Limited> for Problem {
    fn from(limited: Limited) -> Self {
        Self::new(Code::Wire(ErrorCode::RateLimited), limited.to_string())
            .retry_after(limited.seconds())
    }
}

impl From<ViewError> for Problem {
    fn from(ViewError(code): ViewError) -> Self {
        // A view is sent away only with its document.
        if code == ErrorCode::Closed {
            let detail =
                "the document was deleted, and is there again; what was sent may be kept or not";
            return Self::new(Code::Wire(ErrorCode::Overloaded), detail);
        }
        let detail = match code {
            ErrorCode::ShuttingDown => "the server is stopping; what was sent may be kept or not",
            ErrorCode::TooDeep => {
                "there are more levels than JSON is shown or written with; `concord export` has it as it is"
            }
            ErrorCode::TooManyDocuments => "there is no memory for one more document now",
            // JSON comes to no other one.
            ErrorCode::BadOp => "no key may be __proto__",
            _ => "",
        };
        Self::new(Code::Wire(code), detail)
    }
}

impl From<ParsePathError> for Problem {
    fn from(error: ParsePathError) -> Self {
        Self::new(Code::BadPath, error.to_string())
    }
}

impl From<NoPlace> for Problem {
    fn from(error: NoPlace) -> Self {
        let detail = error.to_string();
        match error {
            NoPlace::Nothing { at } | NoPlace::NotWithin { at } | NoPlace::NotAPosition { at } => {
                Self::new(Code::NoValue, detail).at(&at)
            }
            NoPlace::Automerge(_) => Self::new(Code::Wire(ErrorCode::Internal), ""),
        }
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        let detail = error.to_string();
        match error {
            WriteError::NoPlace(error) => error.into(),
            WriteError::Edit(EditError::RootIsAMap) => Self::new(Code::NotAnObject, detail),
            WriteError::Edit(EditError::TooManyOps) => {
                Self::new(Code::Wire(ErrorCode::TooManyOps), detail)
            }
            WriteError::Edit(EditError::ProtoKey) => {
                Self::new(Code::Wire(ErrorCode::BadOp), detail)
            }
            WriteError::Edit(EditError::TooMuch(_)) => Self::new(Code::TooManyValues, detail),
            // Automerge refuses nothing of what is written here.
            WriteError::Edit(EditError::Automerge(_)) => {
                Self::new(Code::Wire(ErrorCode::Internal), "")
            }
            WriteError::NotAContainer { at } => Self::new(Code::NotAContainer, detail).at(&at),
            WriteError::Root => Self::new(Code::Root, detail).at(""),
            WriteError::TestFailed { at } => Self::new(Code::TestFailed, detail).at(&at),
            WriteError::IntoItself { at, .. } => Self::new(Code::PatchFailed, detail).at(&at),
            WriteError::BadPointer(_) => Self::new(Code::BadPatch, detail),
            WriteError::TooDeep { at } => Self::new(Code::TooDeep, detail).at(&at),
            WriteError::Operation { reason, at, .. } => {
                let code = match Self::from(*reason).code {
                    Code::NoValue | Code::Root | Code::NotAContainer => Code::PatchFailed,
                    code => code,
                };
                Self::new(code, detail).at(&at)
            }
        }
    }
}
