//! TLS, where the server speaks it itself: which certificate its handshakes show, and how that is replaced while it runs.
//!
//! Certificates end every few weeks, and whatever renews them only writes files. So these are read again from time to
//! time, and on SIGHUP. What can't be used is logged and changes nothing: a renewal writes two files, one after the other,
//! and a server that stopped in between would be the worse for it. Connections that are open are not touched.
//!
//! The handshake itself is the [`listener`](crate::listener)'s, with its slots and deadlines.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use metrics::{Gauge, describe_gauge, gauge};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use self::pair::{Files, Fingerprint, Pair, PairError};
use crate::clock::unix_ms;
use crate::config::Config;
use crate::hangups::Hangups;

pub mod pair;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A certificate that ends sooner should have been renewed: those that renew by themselves do so weeks before.
const ENDS_SOON_SECONDS: u64 = 14 * 24 * 60 * 60;

/// How often it is said that a certificate ends soon.
const REMIND_EVERY: Duration = Duration::from_hours(24);

/// The only protocol that is spoken here. A client that offers others alone is refused in the handshake.
const PROTOCOL: &[u8] = b"http/1.1";

/// Settings by which TLS can't be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of two that belong together.
    #[error("--tls-cert and --tls-key are given together: {missing} is missing")]
    Half {
        /// The other one.
        missing: &'static str,
    },
    /// Files that can't be used.
    #[error("TLS: {0}")]
    Pair(#[from] PairError),
    /// The library can't do what is asked of it.
    #[error("TLS: {0}")]
    Library(#[from] rustls::Error),
}

/// Cheap to clone; clones show the same certificate.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    provider: Arc<CryptoProvider>,
    files: Files,
    shown: Arc<Shown>,
    /// Of what is shown first.
    first: (Fingerprint, u64),
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// The certificate of the next handshake.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl Shown {
    fn replace(&self, certified: Arc<CertifiedKey>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certified;
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&shown))
    }
}

impl Tls {
    /// As the settings have it, if they have it. Reads the files that they name.
    pub fn of(config: &Config) -> Result<Option<Self>, TlsError> {
        let (certificate, key) = match (&config.tls_cert, &config.tls_key) {
            (None, None) => return Ok(None),
            (Some(_), None) => {
                return Err(TlsError::Half {
                    missing: "--tls-key",
                });
            }
            (None, Some(_)) => {
                return Err(TlsError::Half {
                    missing: "--tls-cert",
                });
            }
            (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
        };
        Self::open(Files { certificate, key }).map(Some)
    }

    fn open(files: Files) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let texts = files.read()?;
        let Pair {
            certified,
            expires_s,
        } = files.pair(&texts, &provider)?;
        let shown = Arc::new(Shown(RwLock::new(certified)));
        // TLS 1.2 and 1.3, with what the library thinks is safe, which is all that it has.
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&shown) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            provider,
            files,
            shown,
            first: (texts.fingerprint(), expires_s),
        })
    }

    /// Makes handshakes.
    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Looks at the files for as long as it is polled. SIGHUP, which would end the process, is taken from when this
    /// returns.
    pub fn watch(&self) -> io::Result<impl Future<Output = ()> + Send + use<>> {
        let mut hangups = Hangups::new()?;
        let watch = Arc::new(Mutex::new(Watch::new(self)));
        Ok(async move {
            let mut look = tokio::time::interval(LOOK_EVERY);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            look.reset();
            loop {
                tokio::select! {
                    _ = look.tick() => {}
                    () = hangups.next() => {}
                }
                // Files may be on a disk that does not answer.
                let watch = Arc::clone(&watch);
                let looked = tokio::task::spawn_blocking(move || {
                    let watch = watch.lock();
                    watch.unwrap_or_else(PoisonError::into_inner).look();
                });
                // A panic is logged by its hook; what is shown stays, and it is looked again.
                let _panicked = looked.await;
            }
        })
    }
}

/// What is known of the files.
struct Watch {
    provider: Arc<CryptoProvider>,
    files: Files,
    shown: Arc<Shown>,
    fingerprint: Fingerprint,
    expires_s: u64,
    expires: Gauge,
    /// What was last said to be wrong with them.
    wrong: Option<String>,
    reminded: Instant,
}

impl Watch {
    fn new(tls: &Tls) -> Self {
        describe_gauge!(
            "concord_tls_certificate_expires_seconds",
            "When the certificate that is shown ends, in seconds since 1970"
        );
        let (fingerprint, expires_s) = tls.first;
        let mut watch = Self {
            provider: Arc::clone(&tls.provider),
            files: tls.files.clone(),
            shown: Arc::clone(&tls.shown),
            fingerprint,
            expires_s,
            expires: gauge!("concord_tls_certificate_expires_seconds"),
            wrong: None,
            reminded: Instant::now(),
        };
        watch.remind();
        watch
    }

    /// Takes what is new, if it can be used.
    fn look(&mut self) {
        match self.newer() {
            Ok(None) => self.wrong = None,
            Ok(Some((fingerprint, pair))) => {
                self.shown.replace(pair.certified);
                self.fingerprint = fingerprint;
                self.expires_s = pair.expires_s;
                self.wrong = None;
                let file = self.files.certificate.display();
                info!(%file, "the TLS certificate was replaced");
                self.remind();
            }
            Err(error) => {
                let wrong = error.to_string();
                if self.wrong.as_ref() != Some(&wrong) {
                    warn!(error = wrong, "the former TLS certificate is kept");
                }
                self.wrong = Some(wrong);
            }
        }
        if self.reminded.elapsed() >= REMIND_EVERY {
            self.remind();
        }
    }

    fn newer(&self) -> Result<Option<(Fingerprint, Pair)>, PairError> {
        let texts = self.files.read_again()?;
        let fingerprint = texts.fingerprint();
        if fingerprint == self.fingerprint {
            return Ok(None);
        }
        let pair = self.files.pair(&texts, &self.provider)?;
        let now_s = unix_ms() / 1000;
        // An old file that was put back by mistake, say. Of two that have expired it is the one that somebody chose.
        if pair.expires_s <= now_s && now_s < self.expires_s {
            let path = self.files.certificate.clone();
            return Err(PairError::Expired { path });
        }
        Ok(Some((fingerprint, pair)))
    }

    /// Says when the certificate ends, to the log if that is soon.
    fn remind(&mut self) {
        self.reminded = Instant::now();
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        self.expires.set(self.expires_s as f64);
        let file = self.files.certificate.display();
        match self.expires_s.checked_sub(unix_ms() / 1000) {
            None | Some(0) => warn!(%file, "the TLS certificate has expired"),
            Some(left) if left < ENDS_SOON_SECONDS => {
                let hours = left / 3600;
                warn!(%file, hours, "the TLS certificate expires soon");
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
