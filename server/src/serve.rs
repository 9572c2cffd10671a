//! Starting and stopping the server.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use concord_shared::ids::{PeerId, StorageId};
use concord_shared::limits::Limits;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::access::{Grants, labelling};
use crate::config::{Config, Durability};
use crate::connection::backoff::Backoff;
use crate::connection::decode::Decoders;
use crate::connection::peers::Peers;
use crate::connection::refusals::Refusals;
use crate::connection::socket::Connections;
use crate::document::ConnectionId;
use crate::document::registry::Registry;
use crate::erasure::Eraser;
use crate::http::authenticate::Gate;
use crate::http::body::CONCURRENT_LARGE_BODIES;
use crate::http::cursor::Cursors;
use crate::http::documents::{
    CONCURRENT_IMPORTS, CONCURRENT_LARGE_PASTS, CONCURRENT_LISTS, Documents,
};
use crate::http::files::Files;
use crate::http::idempotency::Keys;
use crate::http::origins::Origins;
use crate::http::proxies::Proxies;
use crate::http::{self, App};
use crate::limits::Callers;
use crate::limits::ledger::Ledger;
use crate::listener;
use crate::metrics::Metrics;
use crate::secret::Secret;
use crate::store::{self, Committer, CommitterOptions, CommitterThread, Store};
use crate::tls::Tls;
use crate::traffic::InFlight;
use crate::view::Views;

/// A server that listens but does not accept yet.
pub struct Server {
    listener: TcpListener,
    tls: Option<Tls>,
    /// Looks whether the certificate was replaced.
    watching: Option<AbortOnDropHandle<()>>,
    inside: Inside,
    drain: Duration,
}

/// A server but for its port: documents over a store, and what answers requests about them. A command has one of its
/// own where no server runs.
pub struct Inside {
    app: App,
    committer: CommitterThread,
}

/// What is done to a store besides what clients ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upkeep {
    /// Documents are compacted, what was deleted long enough ago is erased, what an earlier build stored gets labels, and
    /// the server's identity and secret are kept.
    Full,
    /// Documents are compacted, and the server's identity and secret are kept. Nothing is erased unless somebody asks for
    /// that: for how long what is deleted is kept is for the server to say.
    NoErasing,
    /// Nothing is written.
    None,
}

/// Compactions at a time, per server. Each may hold a whole document in memory. They have no part in
/// the permits of decoding: neither clients nor the store's upkeep wait for the other.
const CONCURRENT_COMPACTIONS: usize = 1;

/// Buckets of latency histograms, in seconds.
const LATENCY_BUCKETS: [f64; 12] = [
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0,
];

/// Buckets of batch sizes, in changes.
const BATCH_BUCKETS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 256.0, 1024.0, 8192.0];

/// Buckets of how long it takes to write the database anew, in seconds.
const REWRITE_BUCKETS: [f64; 10] = [
    0.1, 0.5, 2.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0,
];

/// The process's metrics recorder; installed on first use, since there can be one only. What makes
/// its metrics before that records nothing: call it before a store is opened.
pub(crate) fn recorder() -> anyhow::Result<PrometheusHandle> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCY_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_changes".to_owned()), &BATCH_BUCKETS)?
        .set_buckets_for_metric(
            Matcher::Full("concord_rewrite_seconds".to_owned()),
            &REWRITE_BUCKETS,
        )?
        .install_recorder()
        .context("installing the metrics recorder")?;
    Ok(HANDLE.get_or_init(|| handle).clone())
}

impl Server {
    /// Opens the port, for those whom `gate` lets through, encrypted by `tls` if it is there; documents are read from and
    /// written to `store`.
    pub async fn bind(
        config: &Config,
        store: Arc<dyn Store>,
        gate: Gate,
        tls: Option<Tls>,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("listening on {}", config.listen))?;
        let inside = Inside::start(config, store, Upkeep::Full, gate)?;
        let watching = match &tls {
            Some(tls) => Some(AbortOnDropHandle::new(tokio::spawn(tls.watch()?))),
            None => None,
        };
        Ok(Self {
            listener,
            tls,
            watching,
            inside,
            drain: Duration::from_secs(config.drain_seconds),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Serves until `stop` resolves, then stops accepting, lets documents write and acknowledge what
    /// they have taken in, closes connections with a reason, and syncs the store.
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
        let Self {
            listener,
            tls,
            watching,
            inside,
            drain,
        } = self;
        let app = &inside.app;
        let token = app.connections.stop.clone();
        let capacity = Arc::clone(&app.capacity);
        let all = u32::try_from(capacity.available_permits()).unwrap_or(u32::MAX);
        let recorder = app.metrics.clone();
        let upkeep = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(5)).await;
                recorder.run_upkeep();
            }
        });
        let headers = app.connections.handshake;
        let most = listener::slots(capacity.available_permits());
        let in_flight = Arc::clone(&app.connections.in_flight);
        let router = inside.router();
        let stop_serving = token.clone();
        let bounds = listener::Bounds {
            most,
            in_flight,
            callers: Arc::clone(&app.connections.callers),
        };
        let serving = listener::serve(listener, router, tls, headers, bounds, stop_serving);
        let serving = tokio::spawn(serving);
        stop.await;
        info!("stopping");
        token.cancel();
        upkeep.abort();
        drop(watching);
        let drained = async {
            let _served = serving.await;
            inside.closed().await;
            // Every connection gives its permit back when it is closed.
            let _closed = capacity.acquire_many(all).await;
        };
        if tokio::time::timeout(drain, drained).await.is_err() {
            warn!("some documents or connections did not finish in time");
        }
        inside.committer.shutdown().await?;
        info!("stopped");
        Ok(())
    }
}

impl Inside {
    /// Starts what works on documents, which are read from and written to `store`, for those whom `gate` lets through and
    /// whose keys are kept current.
    pub fn start(
        config: &Config,
        store: Arc<dyn Store>,
        upkeep: Upkeep,
        gate: Gate,
    ) -> anyhow::Result<Self> {
        let recorder = recorder()?;
        let metrics = Metrics::register();
        let files = match &config.app {
            Some(directory) => Some(Files::new(directory)?),
            None => None,
        };
        let mut origins = Origins::new(config.listen, &config.cors_origin, &config.host)?;
        if gate.cookie.is_some() {
            origins = origins.with_cookie();
        }
        let proxies = Proxies::new(&config.trusted_proxy)?;
        let identity = identity(&*store, upkeep);
        let (server, storage) = identity.context("reading the server's identity")?;
        let secret = secret(&*store, upkeep).context("reading the server's secret")?;
        if upkeep == Upkeep::Full {
            labelling::label_once(&*store).context("labelling what is stored")?;
        }
        let compactions = Arc::new(Semaphore::new(CONCURRENT_COMPACTIONS));
        if upkeep == Upkeep::None {
            compactions.close();
        }
        let stop = CancellationToken::new();
        gate.authority.keep_current(&stop);
        let durability = match config.durability {
            Durability::Strict => store::Durability::Strict,
            Durability::Relaxed => store::Durability::Relaxed,
        };
        let options = CommitterOptions {
            durability,
            ..CommitterOptions::default()
        };
        let (committer, thread) = Committer::start(Arc::clone(&store), options)?;
        let ledger = Arc::new(Ledger::new(config, gate.rules.is_open));
        ledger.read(&*store).context("counting what is stored")?;
        let keep = Duration::from_secs(config.keep_deleted_seconds);
        let keep = (upkeep == Upkeep::Full).then_some(keep);
        let eraser = Eraser::new(
            Arc::clone(&store),
            committer.clone(),
            gate.audit.clone(),
            Arc::clone(&ledger),
            keep,
        );
        if upkeep == Upkeep::Full {
            tokio::spawn(eraser.clone().run(stop.clone()));
        }
        let callers = Arc::new(Callers::new(config, proxies.clone(), Arc::clone(&ledger)));
        let registry = Registry::new(
            Arc::clone(&store),
            committer,
            config,
            storage.clone(),
            compactions,
            ledger,
            stop.clone(),
            metrics.clone(),
        );
        let views = Views::new(
            Arc::clone(&store),
            registry.clone(),
            server.clone(),
            config.views_mib << 20,
            stop.clone(),
        );
        let limits = Limits {
            frame_bytes: config.max_message_mib << 20,
            ..Limits::default()
        };
        let backoff: Arc<Backoff> = Arc::default();
        let refusals: Arc<Refusals> = Arc::default();
        let grants = Grants::new(gate.rules.clone(), gate.webhook.clone(), Arc::clone(&store));
        let connections = Arc::new(Connections {
            server,
            storage,
            registry,
            grants: grants.clone(),
            authority: gate.authority.clone(),
            request_grace: Duration::from_millis(config.request_grace_ms),
            peers: Peers::default(),
            backoff: Arc::clone(&backoff),
            refusals: Arc::clone(&refusals),
            callers: Arc::clone(&callers),
            limits,
            decoders: Decoders::default(),
            in_flight: InFlight::new(limits.frame_bytes),
            max_documents: config.max_documents_per_connection,
            handshake: Duration::from_secs(config.handshake_seconds),
            keep_alive: Duration::from_secs(config.keep_alive_seconds),
            stall: Duration::from_secs(config.stall_seconds),
            drain: Duration::from_secs(config.drain_seconds),
            stop,
            metrics,
            next: AtomicU64::new(ConnectionId::FIRST),
        });
        let capacity = Arc::new(Semaphore::new(config.max_connections));
        Ok(Self {
            app: App {
                connections,
                capacity: Arc::clone(&capacity),
                documents: Documents {
                    views,
                    store: Arc::clone(&store),
                    grants,
                    cursors: Cursors::new(&secret)?,
                    keys: Keys::new(&secret),
                    eraser,
                    large: Arc::new(Semaphore::new(CONCURRENT_LARGE_BODIES)),
                    imports: Arc::new(Semaphore::new(CONCURRENT_IMPORTS)),
                    backoff,
                    refusals,
                    callers,
                    limits,
                    past: Arc::new(Semaphore::new(CONCURRENT_LARGE_PASTS)),
                    lists: Arc::new(Semaphore::new(CONCURRENT_LISTS)),
                    capacity,
                },
                store,
                metrics: recorder,
                origins,
                proxies,
                hsts_seconds: config.hsts_seconds,
                gate,
                files,
            },
            committer: thread,
        })
    }

    /// Answers requests.
    pub fn router(&self) -> Router {
        http::router(self.app.clone())
    }

    /// Lets documents write and acknowledge what they have taken in, and syncs the store.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.app.connections.stop.cancel();
        self.closed().await;
        Ok(self.committer.shutdown().await?)
    }

    async fn closed(&self) {
        self.app.documents.views.closed().await;
        self.app.connections.registry.closed().await;
    }
}

/// The server's own ids, kept in the store: clients keep their sync state by them.
fn identity(store: &dyn Store, upkeep: Upkeep) -> anyhow::Result<(PeerId, StorageId)> {
    let peer = stored_id(store, "peer-id", "concord-", upkeep)?;
    let storage = stored_id(store, "storage-id", "", upkeep)?;
    Ok((PeerId::new(&peer)?, StorageId::new(&storage)?))
}

fn stored_id(store: &dyn Store, key: &str, prefix: &str, upkeep: Upkeep) -> anyhow::Result<String> {
    let id = || Ok(format!("{prefix}{}", uuid::Uuid::new_v4()).into_bytes());
    Ok(String::from_utf8(own(store, key, upkeep, id)?)?)
}

/// The server's secret, kept beside them.
fn secret(store: &dyn Store, upkeep: Upkeep) -> anyhow::Result<Secret> {
    let random = || Ok(Secret::random()?.as_bytes().to_vec());
    let bytes = own(store, "secret", upkeep, random)?;
    Secret::of(&bytes).context("it has another length")
}

/// One of the server's own values: as it was kept, or made now.
fn own(
    store: &dyn Store,
    key: &str,
    upkeep: Upkeep,
    make: impl FnOnce() -> anyhow::Result<Vec<u8>>,
) -> anyhow::Result<Vec<u8>> {
    if let Some(kept) = store.meta(key)? {
        return Ok(kept.to_vec());
    }
    let made = make()?;
    if upkeep != Upkeep::None {
        store.set_meta(key, &made)?;
    }
    Ok(made)
}
