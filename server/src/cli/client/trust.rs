//! By which certificates a server is known.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls_platform_verifier::Verifier;

use crate::tls::pair::certificates;

/// By this machine's, and those in a file.
pub(super) fn config(ca_cert: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let own = match ca_cert {
        Some(path) => certificates(path).context("--ca-cert")?,
        None => Vec::new(),
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Verifier::new_with_extra_roots(own, Arc::clone(&provider));
    let verifier = verifier.context("the certificates by which servers are known")?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        // Only in that the library has other verifiers: this is the system's.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(config)
}
