//! A program that has no CRDT.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use reqwest::header::{CONTENT_TYPE, ETAG, HeaderMap, IF_MATCH, LOCATION};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;

/// Speaks JSON to one server.
#[derive(Debug, Clone)]
pub(crate) struct Rest {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
    address: Option<Ipv4Addr>,
}

/// An answer, whatever it says.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) etag: Option<String>,
    pub(crate) location: Option<String>,
    pub(crate) content_type: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Rest {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            http: concord_tests::http_client(),
            base: format!("http://{address}"),
            token: None,
            address: None,
        }
    }

    /// The same, behind a proxy, from this address.
    pub(crate) fn from(&self, address: Ipv4Addr) -> Self {
        Self {
            address: Some(address),
            ..self.clone()
        }
    }

    /// The same, and says who it is.
    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self.clone()
        }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(address) = self.address {
            request = request.header("x-forwarded-for", address.to_string());
        }
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer> {
        send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn put(&self, path: &str, json: &Value) -> Result<Answer> {
        send(self.request(Method::PUT, path).json(json)).await
    }

    /// Of the version that it saw.
    pub(crate) async fn put_seen(&self, path: &str, etag: &str, json: &Value) -> Result<Answer> {
        let request = self.request(Method::PUT, path).header(IF_MATCH, etag);
        send(request.json(json)).await
    }

    pub(crate) async fn post(&self, path: &str, json: &Value) -> Result<Answer> {
        send(self.request(Method::POST, path).json(json)).await
    }

    pub(crate) async fn patch(&self, path: &str, kind: &str, json: &Value) -> Result<Answer> {
        let request = self.request(Method::PATCH, path).header(CONTENT_TYPE, kind);
        send(request.body(json.to_string())).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<Answer> {
        send(self.request(Method::DELETE, path)).await
    }
}

pub(crate) async fn send(request: RequestBuilder) -> Result<Answer> {
    let response = request.send().await?;
    let header = |name| {
        let value = response.headers().get(name)?;
        Some(value.to_str().ok()?.to_owned())
    };
    Ok(Answer {
        status: response.status(),
        etag: header(ETAG),
        location: header(LOCATION),
        content_type: header(CONTENT_TYPE).unwrap_or_default(),
        headers: response.headers().clone(),
        body: response.bytes().await?.to_vec(),
    })
}

impl Answer {
    pub(crate) fn json(&self) -> Result<Value> {
        let text = || String::from_utf8_lossy(&self.body).into_owned();
        serde_json::from_slice(&self.body).with_context(text)
    }

    /// All values of a header.
    pub(crate) fn header(&self, name: &str) -> String {
        let values = self.headers.get_all(name).into_iter();
        let values: Vec<_> = values.map(|value| value.to_str().unwrap_or("?")).collect();
        values.join(", ")
    }

    pub(crate) fn etag(&self) -> Result<&str> {
        self.etag.as_deref().context("an ETag")
    }

    /// The answer, if it is of success.
    pub(crate) fn good(self) -> Result<Self> {
        let text = String::from_utf8_lossy(&self.body);
        ensure!(self.status.is_success(), "{}: {text}", self.status);
        Ok(self)
    }
}
