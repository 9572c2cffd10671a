//! Who asks: from a request's token to an [`Identity`] in its extensions, or 401.
//!
//! A token is taken from the first of these that has one: the `Authorization` header, an entry of
//! `Sec-WebSocket-Protocol`, the parameter `token` of the query, a cookie. A browser can't set headers on a WebSocket or
//! on a stream of events, and a stock Automerge client has nothing but its URL. From the query it is taken out before
//! anybody else sees the address, so that it is in no log, no answer and no hash of a request.
//!
//! A cookie is sent by the browser whichever page asks, so one counts only if the page is of this server's own site or of
//! one that was named.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use percent_encoding::percent_decode_str;

use super::problem::{Code, Problem};
use super::proxies::Client;
use super::{BELOW_V1, SYNC};
use crate::access::authority::{self, AuthorityError};
use crate::access::{Authority, Identity, Pace, Rules, TokenError, Unidentified, Webhook};
use crate::audit::Audit;
use crate::audit::event::{Asker, Event, Via};
use crate::audit::line::OPERATION_BYTES;
use crate::clock::unix_ms;
use crate::config::{Auth, Config};

/// What a browser may ask for as a WebSocket's subprotocol beside the one with its token, and is then given.
pub const SUBPROTOCOL: &str = "concord";

/// Begins the subprotocol that is a token.
const SUBPROTOCOL_TOKEN: &str = "concord.token.";

/// How the page that asks stands to what it asks, as the browser has it.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The query's parameter.
pub(super) const PARAMETER: &str = "token";

/// Who asks is found out by this. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate {
    /// Who is believed.
    pub authority: Authority,
    /// And may do what.
    pub rules: Rules,
    /// Who decides that instead.
    pub webhook: Option<Webhook>,
    /// The name of the cookie that may have a token.
    pub cookie: Option<Arc<str>>,
    /// Sites besides this server's own whose pages the cookie is for, as `https://example.org`.
    pub sites: Arc<[String]>,
    /// Where it is recorded.
    pub audit: Audit,
}

/// Lets through who is known, and tells handlers who that is.
pub async fn authenticate(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let from_query = take_from_query(request.uri_mut());
    let trail = gate.audit.trail(|| asker(&request));
    let identified = match gate.token(&request, from_query) {
        Ok(token) => gate.identify(token.as_deref()).await,
        Err(problem) => Err(problem),
    };
    match identified {
        Ok(mut identity) => {
            identity.trail = trail.of(&identity.principal);
            identity.trail.record(&Event::Identified);
            request.extensions_mut().insert(identity);
            let mut response = next.run(request).await;
            gate.vary(response.headers_mut());
            response
        }
        Err(problem) => {
            let code = problem.code.as_str();
            trail.record(&Event::NotIdentified { code });
            problem.into_response()
        }
    }
}

/// Of whom it is not known yet who they are.
fn asker(request: &Request) -> Option<Asker> {
    let extensions = request.extensions();
    let Client { address, .. } = extensions.get()?;
    // As it is described, so that what is written of it is none of theirs.
    let path = extensions.get::<MatchedPath>()?.as_str();
    let path = path.strip_prefix(BELOW_V1).unwrap_or(path);
    let method = request.method().as_str();
    let operation = format!("{method} {}", path.replace("{*", "{"));
    let end = operation.floor_char_boundary(OPERATION_BYTES);
    let is_socket = path == SYNC;
    Some(Asker {
        principal: None,
        address: *address,
        via: if is_socket { Via::WebSocket } else { Via::Http },
        connection: None,
        operation: (!is_socket).then(|| operation.get(..end).unwrap_or_default().into()),
    })
}

fn refuse(why: Unidentified) -> Problem {
    let (code, detail) = told_of(why);
    Problem::new(code, detail)
}

/// Why it is not known who asks: the code, and for people.
pub fn refusal(why: Unidentified) -> (&'static str, String) {
    let (code, detail) = told_of(why);
    (code.as_str(), detail)
}

fn told_of(why: Unidentified) -> (Code, String) {
    match why {
        Unidentified::Silent => (
            Code::Unauthenticated,
            "this server has to know who asks".to_owned(),
        ),
        Unidentified::Token(error) => (code(error), error.to_string()),
    }
}

const fn code(error: TokenError) -> Code {
    match error {
        TokenError::TooLarge => Code::TokenTooLarge,
        TokenError::Malformed => Code::TokenMalformed,
        TokenError::Algorithm => Code::TokenAlgorithm,
        TokenError::UnknownKey => Code::TokenUnknownKey,
        TokenError::Signature => Code::TokenSignature,
        TokenError::Issuer => Code::TokenIssuer,
        TokenError::Audience => Code::TokenAudience,
        TokenError::Claims => Code::TokenClaims,
        TokenError::Expired => Code::TokenExpired,
        TokenError::NotYet => Code::TokenNotYet,
    }
}

impl Gate {
    /// Nobody has to say who they are, and everybody may do everything.
    pub fn open() -> Self {
        Self {
            authority: Authority::default(),
            rules: Rules::open(),
            webhook: None,
            cookie: None,
            sites: Arc::default(),
            audit: Audit::default(),
        }
    }

    /// As the settings have it. Reads and fetches the keys that they name, and does so at this pace.
    pub async fn of(config: &Config, pace: Pace) -> Result<Self, AuthorityError> {
        let authority = Authority::of(config, pace).await?;
        let cookie = config.auth_cookie.as_deref();
        let cookie = cookie.filter(|_| config.auth == Auth::Jwt);
        Ok(Self {
            authority,
            rules: authority::rules(config)?,
            webhook: authority::webhook(config)?,
            cookie: cookie.map(Arc::from),
            sites: config.cors_origin.clone().into(),
            audit: Audit::default(),
        })
    }

    /// What a browser keeps is for whoever asked, and somebody else may use the same one afterwards.
    fn vary(&self, headers: &mut HeaderMap) {
        if self.authority.is_open() {
            return;
        }
        headers.append(header::VARY, HeaderValue::from_static("authorization"));
        if self.cookie.is_some() {
            headers.append(header::VARY, HeaderValue::from_static("cookie"));
        }
    }

    async fn identify(&self, token: Option<&str>) -> Result<Identity, Problem> {
        let identified = self.authority.identify(token, unix_ms() / 1000).await;
        identified.map_err(refuse)
    }

    /// What says who asks. Where nobody has to, nothing is looked at.
    fn token<'r>(
        &self,
        request: &'r Request,
        from_query: Option<String>,
    ) -> Result<Option<Cow<'r, str>>, Problem> {
        if self.authority.is_open() {
            return Ok(None);
        }
        let headers = request.headers();
        if let Some(token) = bearer(headers)? {
            return Ok(Some(token.into()));
        }
        if let Some(token) = subprotocol(headers) {
            return Ok(Some(token.into()));
        }
        if let Some(token) = from_query {
            return Ok(Some(token.into()));
        }
        let Some(name) = self.cookie.as_deref() else {
            return Ok(None);
        };
        let mut cookies = cookies_of(headers, name);
        let Some(token) = cookies.next() else {
            return Ok(None);
        };
        if !self.is_own_page(request) {
            let detail = "pages of that site may not act as whoever visits them (--cors-origin)";
            return Err(Problem::new(Code::ForeignOrigin, detail));
        }
        if cookies.any(|other| other != token) {
            // A page of a neighbouring host, or of one below a path, can set one besides.
            return Err(refuse(Unidentified::Token(TokenError::Malformed)));
        }
        Ok(Some(token.into()))
    }

    /// Whether the page that asks is of this site or of one that was named. Reading without a WebSocket browsers need not
    /// say of which; where they say how it stands to this one, or that somebody asked without any page, that counts. A page
    /// of another site does not get to see the answer, but could ask for much, and look how long it takes.
    fn is_own_page(&self, request: &Request) -> bool {
        let headers = request.headers();
        let stands = headers.get(SEC_FETCH_SITE);
        let Some(origin) = headers.get(header::ORIGIN) else {
            let is_socket = headers.contains_key(header::UPGRADE);
            let is_foreign = stands.is_some_and(|site| site != "same-origin" && site != "none");
            let reads = matches!(*request.method(), Method::GET | Method::HEAD);
            return reads && !is_socket && !is_foreign;
        };
        let Ok(origin) = origin.to_str() else {
            return false;
        };
        if self.sites.iter().any(|site| site == origin) {
            return true;
        }
        let Some((scheme, of_origin)) = origin.split_once("://") else {
            return false;
        };
        // A page that came unencrypted may be anybody's on the way. Where a proxy does not say how it was asked, only the
        // browser can compare.
        let client = request.extensions().get::<Client>();
        if client.is_some_and(|client| client.is_https) && scheme != "https" {
            return false;
        }
        if stands.is_some_and(|site| site != "same-origin") {
            return false;
        }
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        host == Some(of_origin)
    }
}

/// The token of an `Authorization` header. A scheme that is not ours may be for a proxy.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).into_iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let malformed = || refuse(Unidentified::Token(TokenError::Malformed));
    if values.next().is_some() {
        // Which of them a proxy looked at is not known.
        return Err(malformed());
    }
    let mut parts = value.as_bytes().splitn(2, |byte| *byte == b' ');
    let scheme = parts.next().unwrap_or_default();
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Ok(None);
    }
    let token = std::str::from_utf8(parts.next().unwrap_or_default());
    Ok(Some(token.map_err(|_| malformed())?.trim()))
}

fn subprotocol(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let values = values.iter().filter_map(|value| value.to_str().ok());
    let mut entries = values.flat_map(|value| value.split(',')).map(str::trim);
    entries.find_map(|entry| entry.strip_prefix(SUBPROTOCOL_TOKEN))
}

fn cookies_of<'r>(headers: &'r HeaderMap, name: &str) -> impl Iterator<Item = &'r str> {
    let values = headers.get_all(header::COOKIE);
    let values = values.iter().filter_map(|value| value.to_str().ok());
    let pairs = values.flat_map(|value| value.split(';'));
    pairs.filter_map(move |pair| {
        let (found, value) = pair.split_once('=')?;
        (found.trim() == name).then(|| value.trim().trim_matches('"'))
    })
}

/// The first `token` of a query. All of them go from the address.
fn take_from_query(uri: &mut Uri) -> Option<String> {
    let query = uri.query()?;
    let is_token = |pair: &&str| pair.split('=').next() == Some(PARAMETER);
    let token = query.split('&').find(is_token)?;
    let (_, token) = token.split_once('=').unwrap_or((token, ""));
    let token = percent_decode_str(token).decode_utf8_lossy().into_owned();
    let rest: Vec<_> = query.split('&').filter(|pair| !is_token(pair)).collect();
    let address = if rest.is_empty() {
        uri.path().to_owned()
    } else {
        format!("{}?{}", uri.path(), rest.join("&"))
    };
    let mut parts = std::mem::take(uri).into_parts();
    // A part of what was one is one.
    parts.path_and_query = PathAndQuery::try_from(address).ok();
    *uri = Uri::from_parts(parts).unwrap_or_default();
    Some(token)
}
