//! Commands as clients of the [HTTP API](crate::http::documents): a running server's (`--url`), or the same code over
//! a data directory that no server uses (`--data`).

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use concord_shared::ids::DocumentId;
use concord_shared::json::MOST_LEVELS;
use concord_shared::path::Path;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::offline::{DATA_VARIABLE, DEFAULT_DATA, DataArgs};
use super::serve::run_to_the_end;
use crate::http::body::{self, Size};
use crate::http::version::Version;
use local::Local;
use remote::Remote;

mod local;
pub mod moment;
pub mod remote;
mod trust;

/// Where the documents are.
#[derive(Debug, clap::Args)]
pub struct TargetArgs {
    /// Address of a running server
    #[arg(long, value_name = "http://HOST:PORT", conflicts_with = "data")]
    url: Option<reqwest::Url>,
    #[command(flatten)]
    token: TokenArgs,
    // Not of clap's own: a variable or a default must not stand against --url.
    #[arg(
        long,
        value_name = "DIRECTORY",
        help = "Directory of the data, which no server is running on [env: CONCORD_DATA] [default: concord-data]"
    )]
    data: Option<PathBuf>,
}

/// Who asks a running server, and how it is known to be that server.
#[derive(Clone, Default, clap::Args)]
pub struct TokenArgs {
    /// Token by which a running server knows who asks; better in the environment, where others do not see it
    #[arg(
        long,
        value_name = "TOKEN",
        env = "CONCORD_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
    /// PEM file with certificates by which a server is known over TLS, besides those that this machine has
    #[arg(long, value_name = "FILE", env = "CONCORD_CA_CERT")]
    ca_cert: Option<PathBuf>,
}

impl std::fmt::Debug for TokenArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenArgs").finish_non_exhaustive()
    }
}

impl TokenArgs {
    /// As the header that says it.
    pub fn header(&self) -> anyhow::Result<Option<HeaderValue>> {
        let header = self.token.as_ref().map(|token| {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim()))?;
            value.set_sensitive(true);
            Ok(value)
        });
        let header: Result<_, axum::http::header::InvalidHeaderValue> = header.transpose();
        header.map_err(|_| UsageError("a token is one line of text".to_owned()).into())
    }

    /// How to speak TLS with the server.
    pub fn tls(&self) -> anyhow::Result<rustls::ClientConfig> {
        trust::config(self.ca_cert.as_deref())
    }
}

/// What a command does to a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing of it is changed.
    Read,
    /// It must be there, and sound.
    Write,
    /// It is made if it is not there.
    Create,
}

/// What a command does with lists of roles in a data directory, where nobody has to say who they are. At a server that
/// is the server's to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lists {
    /// Nothing: what is made is nobody's.
    PassedOver,
    /// They are read and set, by whoever has the files, who may do all.
    Kept,
}

/// Who carries requests out.
#[derive(Debug)]
pub enum Client {
    /// A running server.
    Remote(Remote),
    /// The server's code, here.
    Local(Box<Local>),
}

/// A request that was not carried out, as the API says why.
#[derive(Debug, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Refused {
    /// Stays as it is.
    pub code: String,
    /// For people.
    pub detail: String,
    /// Whether it may go well later.
    pub is_passing: bool,
}

/// A command that can't be carried out as it was typed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

impl TargetArgs {
    /// Runs a command's work, and then ends all that was started for it: what it wrote is durable.
    pub fn run(
        &self,
        access: Access,
        work: impl AsyncFnOnce(&Client) -> anyhow::Result<ExitCode>,
    ) -> anyhow::Result<ExitCode> {
        self.run_on(access, Lists::PassedOver, work)
    }

    /// The same for work that may be on lists of roles.
    pub fn run_on(
        &self,
        access: Access,
        lists: Lists,
        work: impl AsyncFnOnce(&Client) -> anyhow::Result<ExitCode>,
    ) -> anyhow::Result<ExitCode> {
        run_to_the_end(async {
            let client = match &self.url {
                Some(url) => Client::Remote(Remote::new(url, &self.token)?),
                None => Client::Local(Box::new(Local::open(&self.data(), access, lists)?)),
            };
            let done = work(&client).await;
            let closed = match client {
                Client::Remote(_) => Ok(false),
                Client::Local(local) => local.close().await,
            };
            let status = done?;
            Ok(if closed? { ExitCode::FAILURE } else { status })
        })
    }

    /// The server that was named.
    pub fn url(&self) -> Option<&reqwest::Url> {
        self.url.as_ref()
    }

    /// The data directory, where no server was named.
    pub fn data(&self) -> DataArgs {
        let named = self.data.clone();
        let named = named.or_else(|| std::env::var_os(DATA_VARIABLE).map(PathBuf::from));
        DataArgs::of(named.unwrap_or_else(|| PathBuf::from(DEFAULT_DATA)))
    }
}

impl Client {
    /// Sends a request.
    pub async fn send(&self, call: Call) -> anyhow::Result<Answer> {
        let request = call.request()?;
        let response = match self {
            Self::Remote(remote) => remote.send(request).await?,
            Self::Local(local) => local.send(request).await?,
        };
        Answer::of(response)
    }
}

/// A request in the making.
#[derive(Debug)]
pub struct Call {
    method: Method,
    /// Path and query.
    address: String,
    headers: Vec<(HeaderName, String)>,
    body: Bytes,
}

impl Call {
    /// To an address of the API, percent-encoded.
    pub fn new(method: Method, address: impl Into<String>) -> Self {
        Self {
            method,
            address: address.into(),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// About what is at a path in a document.
    pub fn value(method: Method, id: &DocumentId, path: &Path) -> Self {
        Self::new(
            method,
            crate::http::documents::url_within(id, "value", path),
        )
    }

    /// With a parameter, unless it is `None`.
    #[must_use]
    pub fn query(mut self, name: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            let sign = if self.address.contains('?') { '&' } else { '?' };
            let value = value.to_string();
            let value = utf8_percent_encode(&value, NON_ALPHANUMERIC);
            self.address = format!("{}{sign}{name}={value}", self.address);
        }
        self
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Made of the version that its author saw, if they say which.
    #[must_use]
    pub fn if_match(self, version: Option<&str>) -> Self {
        match version {
            Some(version) => self.header(header::IF_MATCH, format!("\"{version}\"")),
            None => self,
        }
    }

    /// Without the value in the answer; and so without its version, where that has more than what is sent.
    #[must_use]
    pub fn minimal(self) -> Self {
        self.header(HeaderName::from_static("prefer"), "return=minimal")
    }

    /// With a body of this type.
    #[must_use]
    pub fn json(mut self, content_type: &str, body: &Json) -> Self {
        self.body = body.to_string().into();
        self.header(header::CONTENT_TYPE, content_type)
    }

    fn request(self) -> anyhow::Result<Request<Bytes>> {
        let mut request = Request::builder().method(self.method).uri(self.address);
        for (name, value) in self.headers {
            let value = HeaderValue::try_from(value)
                .map_err(|_| UsageError(format!("{name} can't have that value")))?;
            request = request.header(name, value);
        }
        request.body(self.body).context("making the request")
    }
}

/// What a request that was carried out gave.
#[derive(Debug)]
pub struct Answer {
    response: Response<Bytes>,
}

const NOT_OURS: &str = "the server's answer can't be read: is it a Concord server?";

/// Levels of an answer: those of a document, and what a list of changes or a patch has around them.
const MOST_ANSWER_LEVELS: usize = 2 * MOST_LEVELS;

/// What is read of a problem document.
#[derive(Deserialize)]
struct Problem {
    code: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: String,
}

impl Answer {
    fn of(response: Response<Bytes>) -> anyhow::Result<Self> {
        let status = response.status();
        if status.is_success() {
            return Ok(Self { response });
        }
        Err(refused(status, response.body()).into())
    }

    /// The body, of which this is expected.
    pub fn parsed<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_value(self.json()?).context(NOT_OURS)
    }

    /// The body as JSON.
    pub fn json(&self) -> anyhow::Result<Json> {
        parse_json(self.response.body())
    }

    /// The version that a read is of.
    pub fn version_read(&self) -> anyhow::Result<String> {
        self.version()
            .context("the server's answer has no version: is it a Concord server?")
    }

    /// As an answer is to which nothing is known that could be in it.
    pub fn must_be_empty(&self) -> anyhow::Result<()> {
        ensure!(self.response.status() == StatusCode::NO_CONTENT, NOT_OURS);
        Ok(())
    }

    /// The body.
    pub fn bytes(&self) -> &Bytes {
        self.response.body()
    }

    /// The version that the answer is about. One to a write has none where there is more in it than its author knows.
    pub fn version(&self) -> Option<String> {
        Version::parse(self.tag()?).map(|version| version.to_string())
    }

    /// What tells what was answered from what is answered later.
    pub fn tag(&self) -> Option<&str> {
        let tag = self.header(&header::ETAG).ok()?;
        // A proxy that compresses makes the tag a weak one, and puts a word behind it.
        Some(tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"'))
    }

    /// The id of the document that was made.
    pub fn made(&self) -> anyhow::Result<DocumentId> {
        let location = self.header(&header::LOCATION)?;
        let id = location.rsplit('/').next().unwrap_or_default();
        let id = percent_decode_str(id).decode_utf8()?;
        Ok(DocumentId::new(&id)?)
    }

    fn header(&self, name: &HeaderName) -> anyhow::Result<&str> {
        let value = self.response.headers().get(name);
        let value = value.and_then(|value| value.to_str().ok());
        value.with_context(|| format!("the server's answer has no {name}"))
    }
}

/// Why a request was not carried out.
fn refused(status: StatusCode, body: &[u8]) -> Refused {
    let is_passing = status.is_server_error();
    if let Ok(Problem {
        code,
        title,
        detail,
    }) = serde_json::from_slice(body)
    {
        let detail = if detail.is_empty() { title } else { detail };
        return Refused {
            code,
            detail,
            is_passing,
        };
    }
    // Of a proxy, or of something else than a Concord server.
    Refused {
        code: status.as_str().to_owned(),
        detail: status
            .canonical_reason()
            .unwrap_or("unknown status")
            .to_owned(),
        is_passing,
    }
}

/// Reads what a server sent.
pub fn parse_json(bytes: &[u8]) -> anyhow::Result<Json> {
    let levels = Size::of(bytes).levels;
    ensure!(
        levels <= MOST_ANSWER_LEVELS,
        "the server's answer has {levels} levels"
    );
    body::parse(bytes).context(NOT_OURS)
}

/// A document id, or its `automerge:` URL.
pub fn document_id(text: &str) -> Result<DocumentId, String> {
    DocumentId::parse_url(text).map_err(|error| error.to_string())
}

/// A JSON Pointer.
pub fn path(text: &str) -> Result<Path, String> {
    Path::parse(text).map_err(|error| error.to_string())
}
