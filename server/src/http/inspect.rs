//! The inspector: pages at `/inspect/` that show documents, their history, and what was refused. They are part of the
//! binary, ask nobody but this server, and only read.
//!
//! What they show was written by anybody. It is put into the page as text alone, and should that fail somewhere, the
//! policy that the page is served with lets no script run but its own, nor anything be fetched from elsewhere.
//! Addresses in the pages are relative, so that a proxy may have all of this below another path.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use super::compress;
use super::constant::Constant;
use super::problem::{Code, Problem};

/// What the page may do: run its own modules, use its own style, ask this server. `trusted-types 'none'` makes every way
/// from a string to markup or script throw.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// A file of the inspector.
struct File {
    name: &'static str,
    content_type: &'static str,
    content: &'static str,
}

macro_rules! files {
    ($($name:literal: $content_type:ident),* $(,)?) => {
        [$(File {
            name: $name,
            content_type: $content_type,
            content: include_str!(concat!("inspect/", $name)),
        }),*]
    };
}

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// All files; [`INDEX`] is also served for the directory.
static FILES: &[File] = &files! {
    "index.html": HTML,
    "api.js": SCRIPT,
    "changes.js": SCRIPT,
    "document.js": SCRIPT,
    "documents.js": SCRIPT,
    "dom.js": SCRIPT,
    "graph.js": SCRIPT,
    "history.js": SCRIPT,
    "icon.svg": IMAGE,
    "keyboard.js": SCRIPT,
    "lanes.js": SCRIPT,
    "live.js": SCRIPT,
    "main.js": SCRIPT,
    "model.js": SCRIPT,
    "refusals.js": SCRIPT,
    "route.js": SCRIPT,
    "rows.js": SCRIPT,
    "style.css": STYLE,
    "text.js": SCRIPT,
    "textdiff.js": SCRIPT,
    "timeline.js": SCRIPT,
    "token.js": SCRIPT,
    "tree.js": SCRIPT,
    "values.js": SCRIPT,
    "versions.js": SCRIPT,
};

const INDEX: &str = "index.html";

/// What is answered, in the same order.
static ANSWERS: LazyLock<Vec<Constant>> = LazyLock::new(|| {
    let value = HeaderValue::from_static;
    let answer = |file: &File| {
        let headers = vec![
            (header::CONTENT_TYPE, value(file.content_type)),
            // Asked again each time, and mostly answered 304: all files are of one build.
            (header::CACHE_CONTROL, value("no-cache")),
            (header::CONTENT_SECURITY_POLICY, value(POLICY)),
        ];
        Constant::new(file.content, headers)
    };
    FILES.iter().map(answer).collect()
});

/// The routes.
pub fn router() -> Router {
    Router::new()
        .route("/inspect", get(directory))
        .route(
            "/inspect/",
            get(async |headers: HeaderMap| file(INDEX, &headers)),
        )
        .route(
            "/inspect/{name}",
            get(async |Path(name): Path<String>, headers: HeaderMap| file(&name, &headers)),
        )
        .layer(from_fn(compress::negotiate))
}

/// Relative, for proxies that have this below another path.
async fn directory() -> Response {
    let location = HeaderValue::from_static("inspect/");
    (
        StatusCode::PERMANENT_REDIRECT,
        [(header::LOCATION, location)],
    )
        .into_response()
}

fn file(name: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let mut files = FILES.iter().zip(ANSWERS.iter());
    let Some((_, answer)) = files.find(|(file, _)| file.name == name) else {
        return Err(Problem::new(
            Code::NoRoute,
            "there is nothing at this address",
        ));
    };
    answer.answer(headers)
}
