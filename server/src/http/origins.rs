//! Whom the server is for: pages of which sites may read and write, and under which names it is reached.
//!
//! A server on a developer's machine mostly asks nobody who they are (`--auth none`), and every page that is open in a browser there can reach
//! it. The browser keeps pages of other sites from reading answers, but sends what any form could send. So:
//!
//! - a page of another site may change something only where that site is named (`--cors-origin`). Browsers say from which
//!   site a request comes; programs do not;
//! - a server that listens on this machine alone answers to names of this machine alone, and those that are named
//!   (`--host`): a site could let its own name point here, and its pages would be of the same site as the server.
//!
//! Without `--cors-origin` there is nothing else here; with it, browsers let pages of these sites read, too.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tower::{Layer as _, Service as _};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::csrf::{ConfigError, CsrfLayer, ProtectionError};

use super::problem::{Code, Problem};

/// Any site.
const ANY: &str = "*";

/// How long a browser need not ask again what a page may do.
const PREFLIGHT_AGE: Duration = Duration::from_hours(2);

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// A site or a name that can't be one.
#[derive(Debug, thiserror::Error)]
pub enum OriginsError {
    /// No browser names a site so.
    #[error("cors-origin: {0}")]
    Origin(#[from] ConfigError),
    /// A name of a host has no scheme, port or path.
    #[error("host: {host:?} is no name of a host")]
    Host {
        /// As it was given.
        host: String,
    },
}

/// Turns a request away, as the library wants it.
pub type Refuse = fn(ProtectionError) -> Response;

/// See the module's docs.
#[derive(Debug, Clone)]
pub struct Origins {
    /// For pages of sites that may read, if there are any.
    pub cors: Option<CorsLayer>,
    /// Against pages of sites that may not write; `None` where all may.
    pub csrf: Option<CsrfLayer<Refuse>>,
    /// The only names that are answered to, besides this machine's own; `None` where all are.
    pub hosts: Option<Arc<[String]>>,
}

impl Origins {
    /// For a server that listens there, for pages of these sites, under these names.
    pub fn new(
        listen: SocketAddr,
        sites: &[String],
        hosts: &[String],
    ) -> Result<Self, OriginsError> {
        let is_for_any = sites.iter().any(|site| site == ANY);
        let mut csrf = CsrfLayer::new();
        let mut listed = Vec::new();
        for site in sites.iter().filter(|site| *site != ANY) {
            csrf = csrf.add_trusted_origin(site)?;
            listed.extend(HeaderValue::try_from(site));
        }
        let allowed = if is_for_any {
            Some(AllowOrigin::any())
        } else if listed.is_empty() {
            None
        } else {
            Some(AllowOrigin::list(listed))
        };
        let is_name = |host: &&String| {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && !b"/:@".contains(&byte))
        };
        if let Some(host) = hosts.iter().find(|host| !is_name(host)) {
            return Err(OriginsError::Host { host: host.clone() });
        }
        let is_private = listen.ip().is_loopback() || !hosts.is_empty();
        let refuse: Refuse = |_| {
            let detail = "pages of that site may not change anything here (--cors-origin)";
            Problem::new(Code::ForeignOrigin, detail).into_response()
        };
        Ok(Self {
            cors: allowed.map(cors),
            csrf: (!is_for_any).then(|| csrf.with_rejection_response(refuse)),
            hosts: is_private.then(|| hosts.iter().map(|host| host.to_ascii_lowercase()).collect()),
        })
    }
}

impl Origins {
    /// Lets pages of the sites that were named, which must be by name, send the cookie that says who visits them.
    #[must_use]
    pub fn with_cookie(mut self) -> Self {
        self.cors = self.cors.map(|cors| cors.allow_credentials(true));
        self
    }
}

fn cors(allowed: AllowOrigin) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers([
            header::ACCEPT,
            header::AUTHORIZATION,
            header::CONTENT_ENCODING,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            IDEMPOTENCY_KEY,
            PREFER,
            LAST_EVENT_ID,
        ])
        .expose_headers([
            header::ETAG,
            header::WWW_AUTHENTICATE,
            header::LOCATION,
            header::CONTENT_LOCATION,
            header::ALLOW,
            header::RETRY_AFTER,
            ACCEPT_PATCH,
            PREFERENCE_APPLIED,
        ])
        .max_age(PREFLIGHT_AGE)
        .vary([header::ORIGIN])
}

/// Answers what browsers ask before a page's request, and tells them who may read. An `OPTIONS` that is no such question
/// is a request like any other.
pub async fn share(State(layer): State<CorsLayer>, request: Request, mut next: Next) -> Response {
    let is_question = request.headers().contains_key(header::ORIGIN)
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let answered = if is_question || request.method() != Method::OPTIONS {
        layer.layer(next).call(request).await
    } else {
        next.call(request).await
    };
    answered.unwrap_or_else(|never| match never {})
}

/// Turns away who asks for another host.
pub async fn only_for(
    State(hosts): State<Option<Arc<[String]>>>,
    request: Request,
    next: Next,
) -> Response {
    match check(&request, hosts.as_deref()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check(request: &Request, hosts: Option<&[String]>) -> Result<(), Problem> {
    let bad = || Problem::new(Code::BadHeader, "a request names one host");
    let mut named = request.headers().get_all(header::HOST).into_iter();
    let host = named.next().map(|host| host.to_str().map_err(|_| bad()));
    let host = host.transpose()?;
    // RFC 9112, section 3.2.
    if named.next().is_some() || host.is_none() && request.version() == Version::HTTP_11 {
        return Err(bad());
    }
    let target = request.uri().authority().map(Authority::as_str);
    let (Some(hosts), Some(host)) = (hosts, target.or(host)) else {
        return Ok(());
    };
    let name = name_of(host);
    let is_known = name.is_empty()
        || is_local(&name)
        // No name that somebody could have let point here.
        || name.parse::<IpAddr>().is_ok()
        || hosts.contains(&name);
    if is_known {
        return Ok(());
    }
    let detail = format!("this server is not known as {name} (--host)");
    Err(Problem::new(Code::UnknownHost, detail))
}

/// Whether a request names this machine as each machine names itself.
pub fn is_of_this_machine(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok());
    host.is_some_and(|host| is_local(&name_of(host)))
}

fn is_local(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// Without port and brackets.
fn name_of(host: &str) -> String {
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_all_that_a_request_may_have() {
        for (host, name) in [
            ("localhost:4010", "localhost"),
            ("LocalHost.", "localhost"),
            ("[::1]:4010", "::1"),
            ("127.0.0.1", "127.0.0.1"),
            ("localhost@evil.example:80", "evil.example"),
            ("", ""),
        ] {
            assert_eq!(name_of(host), name, "{host}");
        }
    }

    #[test]
    fn what_is_no_site_or_no_host_is_named() {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        for site in [
            "example.org",
            "https://example.org/",
            "https://é.example",
            "null",
        ] {
            let error = Origins::new(listen, &[site.to_owned()], &[]);
            assert!(matches!(error, Err(OriginsError::Origin(_))), "{site}");
        }
        for host in ["", "https://example.org", "example.org:80", "a b"] {
            let error = Origins::new(listen, &[], &[host.to_owned()]);
            assert!(matches!(error, Err(OriginsError::Host { .. })), "{host}");
        }
    }
}
