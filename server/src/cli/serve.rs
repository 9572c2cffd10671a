//! `concord serve`: settings, logging, signals.

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use self::limits::LimitArgs;
use anyhow::Context as _;
use serde::Serialize;
use tracing::{Level, info, warn};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::access::Pace;
use crate::audit::Audit;
use crate::config::{Auth, Config, Durability, LogFormat};
use crate::http::authenticate::Gate;
use crate::serve::Server;
use crate::store::{SledOptions, SledStore, Store, StoreError};
use crate::tls::Tls;

mod limits;

/// What still runs on blocking threads once everything is committed and synced gets this long to end:
/// decoding for clients that have gone, and reading for a compaction that can't be committed any more.
/// The process ends without them then. Some hold the store, which is then not closed but left as by a
/// kill, and needs nothing more: all that was acknowledged is synced.
const LAST_JOBS_TIMEOUT: Duration = Duration::from_secs(2);

/// Flags of `concord serve`. Each can also be set in the environment (`CONCORD_LISTEN`, …) and in the
/// TOML file (`listen = …`); flags win over the environment, which wins over the file.
#[derive(Debug, Default, clap::Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServeArgs {
    /// Address and port to listen on [default: 127.0.0.1:4010]
    #[arg(long, value_name = "ADDRESS:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<SocketAddr>,
    /// Directory of the data [default: concord-data]
    #[arg(long, value_name = "DIRECTORY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<PathBuf>,
    /// Directory of an application's files, served at / [default: none]
    #[arg(long, value_name = "DIRECTORY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<PathBuf>,
    /// Site whose pages may read and write documents over HTTP: scheme and host, or * for any [repeatable]
    #[arg(long, value_name = "ORIGIN")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cors_origin: Vec<String>,
    /// Name under which the server is reached, where that is none of this machine's own [repeatable]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    host: Vec<String>,
    /// PEM file with the server's certificate and those that follow it: HTTPS and nothing else is spoken [default: none]
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_cert: Option<PathBuf>,
    /// PEM file with the certificate's private key
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_key: Option<PathBuf>,
    /// With TLS: seconds for which browsers are to use nothing but HTTPS here; 0 tells them nothing [default: 86400]
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    hsts_seconds: Option<u64>,
    /// Proxy that is believed who asks: an address or a network [repeatable] [default: this machine]
    #[arg(long, value_name = "CIDR")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    trusted_proxy: Vec<String>,
    /// Whether callers have to say who they are [default: none]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    auth: Option<Auth>,
    /// File or https:// address of keys by which tokens are verified: PEM, or a JSON Web Key Set [repeatable]
    #[arg(long, value_name = "FILE|URL")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    auth_keys: Vec<PathBuf>,
    /// Who must have made a token, by its `iss`
    #[arg(long, value_name = "ISSUER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_issuer: Option<String>,
    /// For whom a token must have been made, by its `aud` [repeatable]
    #[arg(long, value_name = "AUDIENCE")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    auth_audience: Vec<String>,
    /// Seconds that the clock of whoever makes tokens may be off
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_leeway_seconds: Option<u64>,
    /// An application's address, asked what somebody may do with a document (POST, JSON); what it knows this server by
    /// is put into `CONCORD_AUTHORIZE_TOKEN` [default: lists say]
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    authorize_url: Option<String>,
    /// Seconds for which its answers hold
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    authorize_seconds: Option<u64>,
    /// Name of a cookie that may have a token [default: cookies are not looked at]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_cookie: Option<String>,
    /// Who may do everything with every document, and see what concerns the server: a principal, or group:NAME;
    /// repeatable
    #[arg(long, value_name = "WHOM")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    operator: Vec<String>,
    /// Who may make documents: anyone, a principal, or group:NAME; repeatable
    #[arg(long, value_name = "WHOM")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    creator: Vec<String>,
    /// Who gets which role in each new document beside whoever makes it: WHOM=reader, writer or owner; repeatable
    #[arg(long, value_name = "WHOM=ROLE")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    share: Vec<String>,
    /// Seconds for which a deleted document is kept, before all that is stored of it is erased
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_deleted_seconds: Option<u64>,
    /// File to which the audit log is added; - is standard output [default: none]
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    audit_log: Option<PathBuf>,
    /// With --auth none: listen where other machines reach it, and let everybody there read, write and remove all documents
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    allow_anyone: bool,
    /// When a change counts as kept [default: strict]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    durability: Option<Durability>,
    /// How the log is written [default: text]
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    log_format: Option<LogFormat>,
    /// What is logged: a level or tracing directives [default: info]
    #[arg(long, value_name = "DIRECTIVES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<String>,
    /// Connections at a time
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_connections: Option<usize>,
    #[command(flatten)]
    #[serde(flatten)]
    limits: LimitArgs,
    /// Documents one connection may have open
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_documents_per_connection: Option<usize>,
    /// Largest WebSocket message, in MiB
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_message_mib: Option<usize>,
    /// Seconds a new connection has for its TLS handshake, then to send its request, and then to join
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    handshake_seconds: Option<u64>,
    /// Seconds between pings; a connection that did not answer by the next one is closed
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_alive_seconds: Option<u64>,
    /// Seconds after which a connection that takes nothing, or does not go on with a message, is closed
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    stall_seconds: Option<u64>,
    /// Milliseconds a request for a document that is not here waits for it
    #[arg(long, value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    request_grace_ms: Option<u64>,
    /// Memory for open documents, in MiB
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    documents_mib: Option<usize>,
    /// Memory for documents that are shown as JSON, in MiB
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    views_mib: Option<usize>,
    /// sled's page cache, in MiB
    #[arg(long, value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_mib: Option<usize>,
    /// Seconds after which a document that nobody has open is closed
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_seconds: Option<u64>,
    /// Seconds that open connections get to take what is queued when the server stops
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    drain_seconds: Option<u64>,
    /// TOML file with settings
    #[arg(long, env = "CONCORD_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Start even if the data has lost something that was durable, and give that up for good
    #[arg(long)]
    #[serde(skip)]
    accept_loss: bool,
    /// Print the settings in force, as TOML, and exit
    #[arg(long)]
    #[serde(skip)]
    print_config: bool,
}

/// Runs the server until it is told to stop.
pub fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let config = Config::load(args.config.as_deref(), args)?;
    let mut out = std::io::stdout().lock();
    if args.print_config {
        out.write_all(toml::to_string(&config)?.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    drop(out);
    log_to_stderr(&config)?;
    run_to_the_end(serve(config, args.accept_loss))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs on a runtime whose blocking threads can't hold up the end.
pub(super) fn run_to_the_end<T>(
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(LAST_JOBS_TIMEOUT);
    done
}

/// What to do about [`StoreError::Damaged`].
const DAMAGED_HINT: &str = "Best restore a backup; else copy the directory aside, see what is left by `concord verify` \
     and `concord export`, which leave it as it is, and start once with --accept-loss: clients that hold more \
     send it again";

async fn serve(config: Config, accept_loss: bool) -> anyhow::Result<()> {
    let stop = stop_signal()?;
    // Before the store, which makes its metrics when it is opened, and before keys are read.
    crate::serve::recorder()?;
    // Before anything is made that a mistake would leave behind.
    let mut gate = Gate::of(&config, Pace::default()).await?;
    let tls = Tls::of(&config)?;
    // Held until the line below is out: an audit log on standard output comes behind it.
    let mut out = std::io::stdout().lock();
    let (audit, writing) = Audit::of(&config)?;
    gate.audit = audit;
    let is_encrypted = tls.is_some();
    let mut options = SledOptions::new(&config.data);
    options.cache_bytes = (config.cache_mib as u64) << 20;
    options.accept_loss = accept_loss;
    let opened = tokio::task::spawn_blocking(move || SledStore::open(&options)).await?;
    let store = opened.map_err(|error| match error {
        StoreError::Damaged { .. } => anyhow::anyhow!("{error}. {DAMAGED_HINT}"),
        error => error.into(),
    })?;
    let store: Arc<dyn Store> = Arc::new(store);
    let server = Server::bind(&config, store, gate, tls).await?;
    let address = server.address()?;
    let s = if is_encrypted { "s" } else { "" };
    if config.durability == Durability::Relaxed {
        warn!(
            "durability is relaxed: changes are acknowledged when they are written, not when they are \
             synced to disk; a crash of the machine can lose acknowledged changes"
        );
    }
    let data = config
        .data
        .canonicalize()
        .unwrap_or_else(|_| config.data.clone());
    info!(%address, data = %data.display(), "listening");
    // The first line on standard output: for people, and for programs that start the server.
    writeln!(
        out,
        "concord listening on http{s}://{address} (WebSocket ws{s}://{address}/sync), data in {}",
        data.display()
    )?;
    drop(out);
    let ended = server.run(stop).await;
    if let Some(writing) = writing {
        writing.finish().await;
    }
    ended
}

fn log_to_stderr(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log).context("log directives")?;
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let layer = match config.log_format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(filter_fn(has_no_tokens))
        .with(layer)
        .init();
    Ok(())
}

/// What may be logged, whatever is asked for: at `trace` this writes down what frames say, and with it the tokens in them.
fn has_no_tokens(event: &tracing::Metadata<'_>) -> bool {
    !(event.target().starts_with("tungstenite") && *event.level() == Level::TRACE)
}

/// Resolves on SIGTERM or SIGINT (Ctrl-C).
pub(super) fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        Ok(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
    }
    #[cfg(not(unix))]
    {
        Ok(async {
            let _interrupted = tokio::signal::ctrl_c().await;
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command};

    use super::*;

    #[test]
    fn a_job_that_takes_long_does_not_hold_up_the_end() {
        let start = std::time::Instant::now();
        run_to_the_end(async {
            drop(tokio::task::spawn_blocking(|| {
                std::thread::sleep(5 * LAST_JOBS_TIMEOUT);
            }));
            Ok(())
        })
        .expect("nothing went wrong");
        let took = start.elapsed();
        assert!(took < 2 * LAST_JOBS_TIMEOUT, "{took:?}");
    }

    #[test]
    fn every_setting_is_a_flag() {
        let command = ServeArgs::augment_args(Command::new("serve"));
        let flags: Vec<_> = command
            .get_arguments()
            .filter_map(clap::Arg::get_long)
            .collect();
        let settings = toml::Table::try_from(Config::default()).expect("settings are TOML");
        for setting in settings.keys() {
            assert!(flags.contains(&setting.as_str()), "no --{setting}");
        }
    }
}
