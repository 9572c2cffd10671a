//! A certificate and its private key, from two PEM files that somebody else replaces now and then.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use x509_cert::der::Decode as _;

use crate::files::read_at_most;

/// Bytes of a file with certificates or a key. A chain has some kilobytes.
pub const MOST_PEM_BYTES: usize = 256 << 10;

/// Files that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// It is not there, or may not be read.
    #[error("{} can't be read: {source}", path.display())]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// More bytes than [`MOST_PEM_BYTES`].
    #[error("{} has more than {} KiB", path.display(), MOST_PEM_BYTES >> 10)]
    TooLarge {
        /// Its path.
        path: PathBuf,
    },
    /// A block that begins and is not whole.
    #[error("{} is no PEM file: {source}", path.display())]
    Pem {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// Nothing in it is one.
    #[error("no certificate is in {} (PEM, -----BEGIN CERTIFICATE-----)", path.display())]
    NoCertificate {
        /// The path.
        path: PathBuf,
    },
    /// Nothing in it is one, or it needs a password.
    #[error("no private key is in {} (PEM, without a password)", path.display())]
    NoKey {
        /// The path.
        path: PathBuf,
    },
    /// The first certificate is damaged, or of a kind that is not known.
    #[error("the first certificate in {} can't be used: {source}", path.display())]
    Certificate {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A damaged key, or of a kind that is not known.
    #[error("the private key in {} can't be used: {source}", path.display())]
    Key {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// In place of one that is good still.
    #[error("the first certificate in {} has expired", path.display())]
    Expired {
        /// The path.
        path: PathBuf,
    },
    /// Each is good, and they are not of each other.
    #[error("the private key in {} is not that of the first certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The path of the certificates.
        certificate: PathBuf,
        /// The path of the key.
        key: PathBuf,
    },
}

/// Where they are.
#[derive(Debug, Clone)]
pub struct Files {
    /// A PEM chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// What was in them.
pub struct Texts {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// By which contents are known to be the same: a time of modification says nothing of links that were turned, nor of two
/// writes within one tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// A certificate and the key that is its own.
#[derive(Debug)]
pub struct Pair {
    /// What a handshake shows.
    pub certified: Arc<CertifiedKey>,
    /// When it ends, in seconds since 1970.
    pub expires_s: u64,
}

impl Files {
    /// Reads both.
    pub fn read(&self) -> Result<Texts, PairError> {
        Ok(Texts {
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
        })
    }

    /// Likewise, while the server runs: a pipe in the place of one would be waited for, and nothing ever be read again.
    pub fn read_again(&self) -> Result<Texts, PairError> {
        for path in [&self.certificate, &self.key] {
            let unreadable = |source| {
                let path = path.clone();
                PairError::Unreadable { path, source }
            };
            if !fs::metadata(path).map_err(unreadable)?.is_file() {
                return Err(unreadable(io::Error::other("it is no plain file any more")));
            }
        }
        self.read()
    }

    /// Makes a pair of what was read.
    pub fn pair(&self, texts: &Texts, provider: &CryptoProvider) -> Result<Pair, PairError> {
        let chain = chain(&self.certificate, &texts.certificate)?;
        let unusable = |source| {
            let path = self.certificate.clone();
            PairError::Certificate { path, source }
        };
        let first = chain.first().map(AsRef::as_ref).unwrap_or_default();
        let parsed = x509_cert::Certificate::from_der(first);
        let parsed = parsed.map_err(|error| unusable(error.into()))?;
        let validity = parsed.tbs_certificate().validity();
        let expires_s = validity.not_after.to_unix_duration().as_secs();
        let path = self.key.clone();
        let key = match PrivateKeyDer::from_pem_slice(&texts.key) {
            Ok(key) => key,
            Err(pem::Error::NoItemsFound) => return Err(PairError::NoKey { path }),
            Err(source) => return Err(PairError::Pem { path, source }),
        };
        let certified = CertifiedKey::from_der(chain, key, provider);
        let certified = certified.map_err(|source| match source {
            rustls::Error::InconsistentKeys(_) => PairError::Mismatch {
                certificate: self.certificate.clone(),
                key: self.key.clone(),
            },
            rustls::Error::InvalidCertificate(_) => unusable(source.into()),
            source => PairError::Key { path, source },
        })?;
        Ok(Pair {
            certified: Arc::new(certified),
            expires_s,
        })
    }
}

impl Texts {
    /// What these contents are known by.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        hash.update((self.certificate.len() as u64).to_le_bytes());
        hash.update(&self.certificate);
        hash.update(&self.key);
        Fingerprint(hash.finalize().into())
    }
}

/// The certificates in a PEM file, of which there is one at least.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PairError> {
    chain(path, &read(path)?)
}

fn chain(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, PairError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let path = path.to_owned();
    match chain {
        Ok(chain) if chain.is_empty() => Err(PairError::NoCertificate { path }),
        Ok(chain) => Ok(chain),
        Err(source) => Err(PairError::Pem { path, source }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, PairError> {
    let read = read_at_most(path, MOST_PEM_BYTES);
    let path = path.to_owned();
    match read {
        Ok(bytes) if bytes.len() > MOST_PEM_BYTES => Err(PairError::TooLarge { path }),
        Ok(bytes) => Ok(bytes),
        Err(source) => Err(PairError::Unreadable { path, source }),
    }
}
