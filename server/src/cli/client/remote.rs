//! A running server, over HTTP.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use axum::http::{HeaderMap, Method, Request, Response, header};
use bytes::Bytes;
use reqwest::Url;

use super::{TokenArgs, UsageError, refused};
use crate::outgoing;

/// How long it may take until a server takes the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long nothing may come from it. A stream of events has a sign of life every 15 s; what is written waits for the
/// disk.
const SILENCE_TIMEOUT: Duration = Duration::from_mins(1);

/// See the module's docs.
#[derive(Debug)]
pub struct Remote {
    client: reqwest::Client,
    base: Url,
}

impl Remote {
    /// Reaches for nothing yet.
    pub fn new(base: &Url, token: &TokenArgs) -> anyhow::Result<Self> {
        if !matches!(base.scheme(), "http" | "https") {
            let scheme = base.scheme();
            let error = format!("--url is http://… or https://…, not {scheme}://…");
            return Err(UsageError(error).into());
        }
        let headers = token.header()?.map(|token| (header::AUTHORIZATION, token));
        let mut client = outgoing::client();
        if base.scheme() == "https" {
            client = client.tls_backend_preconfigured(token.tls()?);
        }
        let client = client
            .default_headers(HeaderMap::from_iter(headers))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE_TIMEOUT)
            .build()
            .context("making the HTTP client")?;
        Ok(Self {
            client,
            base: base.clone(),
        })
    }

    /// Sends a request and takes all of its answer.
    pub async fn send(&self, request: Request<Bytes>) -> anyhow::Result<Response<Bytes>> {
        let (head, body) = request.into_parts();
        let address = head.uri.to_string();
        let asked = self.ask(head.method, &address, head.headers, body);
        let answer = asked.await?;
        let mut response = Response::builder().status(answer.status());
        if let Some(headers) = response.headers_mut() {
            headers.clone_from(answer.headers());
        }
        let body = answer.bytes().await.map_err(reqwest::Error::without_url);
        let body = body.with_context(|| format!("the answer of {}", self.shown()))?;
        Ok(response.body(body)?)
    }

    /// Asks for an answer that has no end.
    pub async fn stream(
        &self,
        address: &str,
        headers: HeaderMap,
    ) -> anyhow::Result<reqwest::Response> {
        let asked = self.ask(Method::GET, address, headers, Bytes::new());
        let answer = asked.await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.bytes().await.map_err(reqwest::Error::without_url);
        Err(refused(status, &body.unwrap_or_default()).into())
    }

    async fn ask(
        &self,
        method: Method,
        address: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> anyhow::Result<reqwest::Response> {
        let asked = self
            .client
            .request(method, self.url(address)?)
            .headers(headers)
            .body(body);
        let answer = asked.send().await.map_err(reqwest::Error::without_url);
        let answer = answer.with_context(|| format!("asking {}", self.shown()))?;
        if answer.status().is_redirection() {
            let to = answer.headers().get("location");
            let to = to.and_then(|to| to.to_str().ok()).unwrap_or("elsewhere");
            bail!("{} redirects to {to}: name that by --url", self.shown());
        }
        Ok(answer)
    }

    /// Where an address of the API is, below the server's own.
    fn url(&self, address: &str) -> anyhow::Result<Url> {
        let base = self.base.path().trim_end_matches('/');
        let (path, query) = match address.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (address, None),
        };
        let path = format!("{base}{path}");
        let mut url = self.base.clone();
        url.set_path(&path);
        url.set_query(query);
        // What is asked would be about another place.
        ensure!(
            url.path() == path,
            UsageError("what is named . or .. can't be asked for by URL".to_owned())
        );
        Ok(url)
    }

    /// Without what may be secret in it.
    fn shown(&self) -> String {
        let mut url = self.base.clone();
        let _has_none = url.set_username("");
        let _has_none = url.set_password(None);
        url.set_query(None);
        url.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_below_the_servers_and_none_is_another() {
        let at = |base: &str, address: &str| {
            let remote = Remote::new(&base.parse().expect("a URL"), &TokenArgs::default())
                .expect("a client");
            remote.url(address).map(|url| url.to_string())
        };
        let plain = "http://127.0.0.1:4010";
        assert_eq!(
            at(plain, "/v1/documents?limit=3").expect("an address"),
            "http://127.0.0.1:4010/v1/documents?limit=3"
        );
        for base in [
            "https://example.org/concord",
            "https://example.org/concord/",
        ] {
            assert_eq!(
                at(base, "/v1/documents/a%20b/value/%C3%BC~1%2E").expect("an address"),
                "https://example.org/concord/v1/documents/a%20b/value/%C3%BC~1%2E"
            );
        }
        for other in [
            "/v1/documents/a/value/x/../y",
            "/v1/documents/%2E%2E",
            "/v1/./x",
        ] {
            at(plain, other).expect_err(other);
        }
    }
}
