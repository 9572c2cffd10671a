//! Requests that this program makes: a command's at a running server, a server's for keys and for decisions.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response, Url};

/// An address that is not asked for what is then believed.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Without TLS anybody on the way could answer.
    #[error(
        "what is believed is asked for by https://, or by http:// on this machine (localhost, 127.0.0.1)"
    )]
    Scheme,
    /// It would be in lists of processes and in logs.
    #[error("an address has no user and no password in it")]
    Credentials,
    /// A typing error.
    #[error("no address: {0}")]
    NoAddress(String),
    /// Not for this address, but for all.
    #[error("making the HTTP client")]
    Client(#[source] reqwest::Error),
}

/// An answer that is not had, or not all of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The connection broke, or took too long.
    #[error("fetching")]
    Fetch(#[source] reqwest::Error),
    /// It has more bytes than what is asked for has.
    #[error("more than {most} bytes")]
    TooLarge {
        /// How many it may have.
        most: usize,
    },
}

/// What makes a client: TLS by the one library of cryptography that is built in, no cookies, no redirects. Who was named
/// is asked and nobody else, and to follow one would turn a write into a read.
pub(crate) fn client() -> ClientBuilder {
    // The second call finds the first one's provider.
    let _is_set_already = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::builder()
        .user_agent(concat!("concord/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
}

/// An address whose answers are believed, and what asks it. A request takes `timeout` at most. `idle` connections are kept.
pub(crate) fn believed(
    address: &str,
    timeout: Duration,
    idle: usize,
) -> Result<(Url, Client), AddressError> {
    let url = Url::parse(address).map_err(|error| AddressError::NoAddress(error.to_string()))?;
    match url.scheme() {
        "https" => {}
        "http" if is_this_machine(&url) => {}
        _ => return Err(AddressError::Scheme),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(AddressError::Credentials);
    }
    let mut client = client()
        .connect_timeout(timeout)
        .timeout(timeout)
        .pool_max_idle_per_host(idle);
    if url.scheme() == "http" {
        // A proxy would be another machine.
        client = client.no_proxy();
    }
    Ok((url, client.build().map_err(AddressError::Client)?))
}

/// Reads what was answered, if that is no more than `most` bytes.
pub(crate) async fn body(mut response: Response, most: usize) -> Result<Vec<u8>, BodyError> {
    let failed = |error: reqwest::Error| BodyError::Fetch(error.without_url());
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(failed)? {
        if bytes.len() + piece.len() > most {
            return Err(BodyError::TooLarge { most });
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// For logs and errors: an address without its query, in which something may be secret.
pub(crate) fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}"));
    let (host, port) = (url.host_str().unwrap_or_default(), port.unwrap_or_default());
    format!("{}://{host}{port}{}", url.scheme(), url.path())
}

fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let address: Option<IpAddr> = address.parse().ok();
    host == "localhost" || address.is_some_and(|address| address.is_loopback())
}
