//! An application's files, served at `/`: what `concord serve --app DIRECTORY` names, and nothing else of the machine.
//!
//! `tower-http` reads the files, tells their types and answers conditional and partial requests. In front of it
//! stands what it leaves to its users: no file is shown whose name begins with a dot, none that a link leads to
//! from outside of the directory, and none that is no plain file.

use std::io;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use tower_http::services::ServeDir;

/// Served for a directory.
const INDEX: &str = "index.html";

/// A directory that can't be served.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// It is not there, or can't be looked into.
    #[error("app: {} can't be read", directory.display())]
    Unreadable {
        /// As it was given.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a file.
    #[error("app: {} is no directory", directory.display())]
    NoDirectory {
        /// As it was given.
        directory: PathBuf,
    },
}

/// A directory of files. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Files {
    /// Absolute, without links.
    root: PathBuf,
}

impl Files {
    /// Files are looked for when they are asked for, so they may change.
    pub fn new(directory: &Path) -> Result<Self, FilesError> {
        let root = directory
            .canonicalize()
            .map_err(|source| FilesError::Unreadable {
                directory: directory.to_owned(),
                source,
            })?;
        if !root.is_dir() {
            return Err(FilesError::NoDirectory {
                directory: directory.to_owned(),
            });
        }
        Ok(Self { root })
    }

    /// Answers every path: with a file, or 404.
    pub fn router(&self) -> Router {
        Router::new()
            .fallback_service(ServeDir::new(&self.root))
            .layer(from_fn_with_state(self.clone(), guard))
    }

    /// Whether a request's path leads to something that may be shown. Between this look and the reading somebody
    /// could put a link there; whoever can write into the directory decides what is shown anyway.
    fn shows(&self, path: &str) -> bool {
        let Some(named) = relative(path) else {
            return false;
        };
        let inside = |path: &Path| {
            let found = path.canonicalize().ok()?;
            (found.starts_with(&self.root) && !is_hidden(found.strip_prefix(&self.root).ok()?))
                .then_some(found)
        };
        match inside(&self.root.join(named)) {
            Some(found) if found.is_dir() => {
                inside(&found.join(INDEX)).is_some_and(|index| index.is_file())
            }
            Some(found) => found.is_file(),
            None => false,
        }
    }
}

/// The path below the directory, if every part of it is an ordinary name. A separator that was hidden by encoding
/// it is none.
fn relative(path: &str) -> Option<PathBuf> {
    let mut relative = PathBuf::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let name = percent_decode_str(part).decode_utf8().ok()?;
        if name.starts_with('.') || name.contains(['/', '\\', ':', '\0']) {
            return None;
        }
        relative.push(&*name);
    }
    Some(relative)
}

fn is_hidden(path: &Path) -> bool {
    path.iter()
        .any(|name| name.as_encoded_bytes().starts_with(b"."))
}

async fn guard(State(files): State<Files>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let is_shown = tokio::task::spawn_blocking(move || files.shows(&path)).await;
    let mut response = if is_shown.unwrap_or(false) {
        next.run(request).await
    } else {
        StatusCode::NOT_FOUND.into_response()
    };
    let headers = response.headers_mut();
    // Asked again each time, and mostly answered 304: an application and its parts are replaced together.
    let caching = HeaderValue::from_static("no-cache");
    headers.insert(header::CACHE_CONTROL, caching);
    response
}

#[cfg(test)]
mod tests {
    use std::fs;

    use axum::body::Body;
    use tower::ServiceExt as _;

    use super::*;

    /// A directory to be served, beside a file that must not be.
    fn site() -> (tempfile::TempDir, Router) {
        let all = tempfile::tempdir().expect("a directory");
        let site = all.path().join("site");
        fs::create_dir_all(site.join("sub")).expect("made");
        fs::create_dir_all(site.join("empty")).expect("made");
        fs::create_dir_all(site.join(".git")).expect("made");
        for (name, text) in [
            ("site/index.html", "<p>hello"),
            ("site/app.js", "1"),
            ("site/a b.txt", "spaces"),
            ("site/concord_bg.wasm", "\0asm"),
            ("site/sub/index.html", "<p>below"),
            ("site/.env", "secret"),
            ("site/.git/config", "secret"),
            ("secret.txt", "secret"),
        ] {
            fs::write(all.path().join(name), text).expect("written");
        }
        #[cfg(unix)]
        for (target, name) in [
            ("../secret.txt", "out.txt"),
            ("..", "up"),
            (".env", "env.txt"),
            ("app.js", "same.js"),
        ] {
            std::os::unix::fs::symlink(target, site.join(name)).expect("linked");
        }
        let router = Files::new(&site).expect("a directory").router();
        (all, router)
    }

    async fn ask(router: &Router, method: &str, path: &str) -> Response {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Body::empty()).expect("a request");
        router.clone().oneshot(request).await.expect("an answer")
    }

    #[tokio::test]
    async fn files_come_with_their_type_and_a_tag() {
        let (_site, router) = site();
        for (path, content_type) in [
            ("/", "text/html"),
            ("/index.html", "text/html"),
            ("/sub/", "text/html"),
            ("/app.js", "text/javascript"),
            ("/a%20b.txt", "text/plain"),
            ("/concord_bg.wasm", "application/wasm"),
        ] {
            let response = ask(&router, "GET", path).await;
            assert_eq!(response.status(), 200, "{path}");
            let header = |name| response.headers().get(name).map(HeaderValue::as_bytes);
            assert_eq!(header(header::CONTENT_TYPE), Some(content_type.as_bytes()));
            assert!(header(header::LAST_MODIFIED).is_some(), "{path}");
            let tag = response.headers().get(header::ETAG).expect("a tag");
            let again = Request::builder()
                .uri(path)
                .header(header::IF_NONE_MATCH, tag);
            let again = again.body(Body::empty()).expect("a request");
            let again = router.clone().oneshot(again).await.expect("an answer");
            assert_eq!(again.status(), 304, "{path}");
        }
        assert_eq!(ask(&router, "HEAD", "/app.js").await.status(), 200);
        assert_eq!(ask(&router, "POST", "/app.js").await.status(), 405);
    }

    #[tokio::test]
    async fn nothing_else_is_shown() {
        let (_site, router) = site();
        for path in [
            "/no-such-file",
            "/empty",
            "/empty/",
            "/.env",
            "/%2eenv",
            "/.git/config",
            "/sub/../.env",
            "/../secret.txt",
            "/..%2fsecret.txt",
            "/%2e%2e/secret.txt",
            "/%2e%2e%2fsecret.txt",
            "/sub/../../secret.txt",
            "/sub/%2e%2e/%2e%2e/secret.txt",
            "/..%5csecret.txt",
            "/%252e%252e/secret.txt",
            "/sub%2f..%2f..%2fsecret.txt",
            "//etc/passwd",
            "/%2fetc/passwd",
            "/app.js%00",
            "/%ff",
            "/out.txt",
            "/up/secret.txt",
            "/env.txt",
        ] {
            assert_eq!(ask(&router, "GET", path).await.status(), 404, "{path}");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn links_inside_are_followed() {
        let (_site, router) = site();
        assert_eq!(ask(&router, "GET", "/same.js").await.status(), 200);
    }

    #[test]
    fn what_is_no_directory_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        fs::write(&file, "").expect("written");
        let error = Files::new(&file).expect_err("a file");
        assert!(matches!(error, FilesError::NoDirectory { .. }), "{error}");
        let error = Files::new(&directory.path().join("none")).expect_err("nothing");
        assert!(matches!(error, FilesError::Unreadable { .. }), "{error}");
    }
}
