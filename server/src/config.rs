//! Settings: flags over environment over file over defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

use crate::access::token::MOST_LEEWAY_SECONDS;

/// Prefix of environment variables: `CONCORD_LISTEN`, `CONCORD_DATA`, …
pub const ENVIRONMENT_PREFIX: &str = "CONCORD_";

/// What comes after the prefix in variables that are no settings: the project's own tests take theirs
/// from `CONCORD_TEST_SEED` and the like, and a shell that has one must still start a server.
const NO_SETTING_PREFIX: &str = "test_";

/// When a change counts as kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// When it is on disk.
    Strict,
    /// When it was written, synced to disk or not: a crash of the process loses nothing that was acknowledged, a
    /// crash of the machine may.
    Relaxed,
}

/// Whether callers have to say who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// Nobody has to: whoever reaches the server may read and write everything.
    None,
    /// By a JSON Web Token.
    Jwt,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Everything `concord serve` can be told. Every field is a flag, an environment variable and a key of
/// the TOML file, under the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Directory of the data; made if it is not there.
    pub data: PathBuf,
    /// Directory of an application's files, served at `/`. None: nothing is there.
    pub app: Option<PathBuf>,
    /// Sites whose pages may read and write documents over HTTP, as `https://example.org`; `*` is any.
    #[serde(deserialize_with = "one_or_many")]
    pub cors_origin: Vec<String>,
    /// Names under which the server is reached. None: any, but for a server that listens on this machine alone.
    #[serde(deserialize_with = "one_or_many")]
    pub host: Vec<String>,
    /// A PEM file with a certificate and those between it and one that clients know. None: no TLS.
    pub tls_cert: Option<PathBuf>,
    /// A PEM file with the certificate's private key.
    pub tls_key: Option<PathBuf>,
    /// Seconds for which browsers are told to use nothing but HTTPS here, where this server speaks TLS. 0: they are not.
    pub hsts_seconds: u64,
    /// Addresses or networks of proxies that are believed when they say who asks.
    #[serde(deserialize_with = "one_or_many")]
    pub trusted_proxy: Vec<String>,
    /// Whether callers have to say who they are.
    pub auth: Auth,
    /// Files and addresses of the keys by which tokens are verified: PEM, or a JSON Web Key Set.
    #[serde(deserialize_with = "one_or_many_paths")]
    pub auth_keys: Vec<PathBuf>,
    /// Who must have made a token, by its `iss`. None: anybody who has a key.
    pub auth_issuer: Option<String>,
    /// For whom a token must have been made, by its `aud`. None: for nobody in particular.
    #[serde(deserialize_with = "one_or_many")]
    pub auth_audience: Vec<String>,
    /// Seconds that the clock of whoever makes tokens may be off.
    pub auth_leeway_seconds: u64,
    /// Name of a cookie that may have a token. None: cookies are not looked at.
    pub auth_cookie: Option<String>,
    /// Who may do everything with every document, and see what concerns the server: principals, or `group:NAME`.
    #[serde(deserialize_with = "one_or_many")]
    pub operator: Vec<String>,
    /// Who may make documents: `anyone` who is let in, principals, or `group:NAME`.
    #[serde(deserialize_with = "one_or_many")]
    pub creator: Vec<String>,
    /// Who gets which role in each new document, beside whoever makes it, as `WHOM=ROLE`.
    #[serde(deserialize_with = "one_or_many")]
    pub share: Vec<String>,
    /// An application's address, which is asked what somebody may do with a document. None: lists say.
    pub authorize_url: Option<String>,
    /// Seconds for which its answers hold.
    pub authorize_seconds: u64,
    /// Seconds for which a deleted document is kept, before all that is stored of it is erased.
    pub keep_deleted_seconds: u64,
    /// A file for the audit log; `-` is standard output. None: there is none.
    pub audit_log: Option<PathBuf>,
    /// Listen where other machines reach it though nobody has to say who they are.
    pub allow_anyone: bool,
    /// When a change is acknowledged and relayed.
    pub durability: Durability,
    /// How the log is written.
    pub log_format: LogFormat,
    /// What is logged: a level, or `tracing` directives such as `info,concord_server::connection=debug`.
    pub log: String,
    /// Connections at a time; more are answered 503.
    pub max_connections: usize,
    /// TCP connections that one address may have at a time beside WebSocket connections. 0, here and below: no limit.
    pub max_connections_per_address: usize,
    /// New TCP connections that one address may make in a second, for long.
    pub connections_per_second: u64,
    /// Requests of one address in a second that bring no token that is believed.
    pub unauthenticated_per_second: u64,
    /// Requests of one address in a second for what nobody needs a token for.
    pub open_requests_per_second: u64,
    /// WebSocket connections and event streams that one caller may have at a time.
    pub max_connections_per_caller: usize,
    /// Documents that one caller may have open, on all their connections.
    pub max_open_documents_per_caller: usize,
    /// HTTP requests of one caller in a second.
    pub requests_per_second: u64,
    /// WebSocket messages that one caller may send in a second.
    pub messages_per_second: u64,
    /// MiB of WebSocket messages that one caller may send in a second.
    pub received_mib_per_second: u64,
    /// Changes that one caller may send in a second.
    pub changes_per_second: u64,
    /// Documents that one caller may make in a minute.
    pub new_documents_per_minute: u64,
    /// Documents that one principal may have made, without those that were deleted.
    pub max_documents_per_principal: u64,
    /// MiB that these may take in the store.
    pub max_mib_per_principal: u64,
    /// MiB that one document may take in the store.
    pub max_document_mib: u64,
    /// Connections that may have one document open.
    pub max_peers_per_document: usize,
    /// Documents one connection may have open.
    pub max_documents_per_connection: usize,
    /// Largest WebSocket message in MiB. A document's first upload is one message.
    pub max_message_mib: usize,
    /// Seconds a new connection has for its TLS handshake, then to send its request, and then to join.
    pub handshake_seconds: u64,
    /// Seconds between pings; a connection that did not answer by the next one is closed.
    pub keep_alive_seconds: u64,
    /// Seconds after which a connection is closed that takes nothing of what is written to it, or does
    /// not go on with a message that it has begun.
    pub stall_seconds: u64,
    /// Milliseconds a request for a document that is not here waits for it before it is unavailable.
    pub request_grace_ms: u64,
    /// Seconds after which a document that nobody has open is closed.
    pub idle_seconds: u64,
    /// Memory for open documents in MiB; over it, those nobody has open are closed at once.
    pub documents_mib: usize,
    /// Memory for documents that are shown as JSON in MiB; over it, those that nobody is reading or writing are
    /// closed.
    pub views_mib: usize,
    /// sled's page cache in MiB.
    pub cache_mib: usize,
    /// Seconds that open connections get to take what is queued for them when the server stops.
    pub drain_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 4010)),
            data: PathBuf::from("concord-data"),
            app: None,
            cors_origin: Vec::new(),
            host: Vec::new(),
            tls_cert: None,
            tls_key: None,
            hsts_seconds: 24 * 60 * 60,
            trusted_proxy: ["127.0.0.0/8", "::1/128"].map(str::to_owned).to_vec(),
            auth: Auth::None,
            auth_keys: Vec::new(),
            auth_issuer: None,
            auth_audience: Vec::new(),
            auth_leeway_seconds: 30,
            auth_cookie: None,
            operator: Vec::new(),
            creator: vec!["anyone".to_owned()],
            share: Vec::new(),
            authorize_url: None,
            authorize_seconds: 30,
            keep_deleted_seconds: 30 * 24 * 60 * 60,
            audit_log: None,
            allow_anyone: false,
            durability: Durability::Strict,
            log_format: LogFormat::Text,
            log: "info".to_owned(),
            max_connections: 10_000,
            max_connections_per_address: 512,
            connections_per_second: 50,
            unauthenticated_per_second: 10,
            open_requests_per_second: 200,
            max_connections_per_caller: 2000,
            max_open_documents_per_caller: 32_768,
            requests_per_second: 1000,
            messages_per_second: 5000,
            received_mib_per_second: 8,
            changes_per_second: 10_000,
            new_documents_per_minute: 600,
            max_documents_per_principal: 100_000,
            max_mib_per_principal: 10 << 10,
            max_document_mib: 1 << 10,
            max_peers_per_document: 2000,
            max_documents_per_connection: 4096,
            max_message_mib: 32,
            handshake_seconds: 10,
            keep_alive_seconds: 5,
            stall_seconds: 60,
            request_grace_ms: 500,
            idle_seconds: 30,
            documents_mib: 1024,
            views_mib: 256,
            cache_mib: 64,
            drain_seconds: 5,
        }
    }
}

/// A list, or text with commas as a variable has it.
fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        Many(Vec<String>),
        One(String),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::Many(many) => many,
        OneOrMany::One(text) => {
            let parts = text.split(',').map(str::trim);
            let parts = parts.filter(|part| !part.is_empty());
            parts.map(str::to_owned).collect()
        }
    })
}

fn one_or_many_paths<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<PathBuf>, D::Error> {
    let paths = one_or_many(deserializer)?.into_iter();
    Ok(paths.map(PathBuf::from).collect())
}

/// Settings that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that was named is not there.
    #[error("configuration file {} is not there", path.display())]
    NoFile {
        /// Its path.
        path: PathBuf,
    },
    /// A value that does not parse, or an unknown key.
    #[error("configuration: {0}")]
    Invalid(#[from] Box<figment::Error>),
    /// A number that makes no sense, or that what it is for can't hold.
    #[error("{key} must be between {} and {}, not {value}", range.start(), range.end())]
    OutOfRange {
        /// Which.
        key: &'static str,
        /// What it was set to.
        value: u64,
        /// What it may be.
        range: RangeInclusive<u64>,
    },
}

/// Connections that a process could have files for.
const MOST_CONNECTIONS: u64 = 10_000_000;

/// Documents that a server could hold.
const MOST_DOCUMENTS: u64 = 100_000_000;

/// Far more than anything comes: a larger number is no limit.
const MOST_RATE: u64 = 1_000_000;

/// What no network card brings.
const MOST_RECEIVED_MIB: u64 = 4096;

/// A pebibyte on disk.
const MOST_STORED_MIB: u64 = 1 << 30;

/// One MiB short of what a WebSocket library can hold as one message.
const MOST_MESSAGE_MIB: u64 = 2047;

/// A tebibyte of memory.
const MOST_MEMORY_MIB: u64 = 1 << 20;

/// Two years: what lists of browsers ask for.
const MOST_HSTS_SECONDS: u64 = 2 * 365 * 24 * 60 * 60;

/// Ten years: longer is for ever.
const MOST_KEEP_DELETED_SECONDS: u64 = 10 * 366 * 24 * 60 * 60;

/// What an application took away may be there for as long.
const MOST_AUTHORIZE_SECONDS: u64 = 600;

/// What is waited for longer is not waited for.
const MOST_SECONDS: u64 = 24 * 60 * 60;

impl Config {
    /// Reads the settings: `flags` (a struct of options, absent ones skipped), then the environment,
    /// then the file, then the defaults.
    pub fn load(file: Option<&Path>, flags: impl Serialize) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(path) = file {
            if !path.is_file() {
                return Err(ConfigError::NoFile {
                    path: path.to_owned(),
                });
            }
            figment = figment.merge(Toml::file_exact(path));
        }
        let config: Self = figment
            .merge(
                Env::prefixed(ENVIRONMENT_PREFIX)
                    .filter(|key| {
                        // The file's own name is a flag's variable.
                        let key = key.as_str().to_ascii_lowercase();
                        // Keys are text there, and what commands ask a server by is none of the server's.
                        ![
                            "config",
                            "auth_keys_text",
                            "authorize_token",
                            "token",
                            "ca_cert",
                        ]
                        .contains(&key.as_str())
                            && !key.starts_with(NO_SETTING_PREFIX)
                    })
                    .map(|key| key.as_str().replace('_', "-").into()),
            )
            .merge(Serialized::defaults(flags))
            .extract()
            .map_err(Box::new)?;
        config.check()?;
        Ok(config)
    }

    /// For a server that only its own process asks.
    #[must_use]
    pub fn without_limits(self) -> Self {
        Self {
            max_connections_per_address: 0,
            connections_per_second: 0,
            unauthenticated_per_second: 0,
            open_requests_per_second: 0,
            max_connections_per_caller: 0,
            max_open_documents_per_caller: 0,
            requests_per_second: 0,
            messages_per_second: 0,
            received_mib_per_second: 0,
            changes_per_second: 0,
            new_documents_per_minute: 0,
            max_documents_per_principal: 0,
            max_mib_per_principal: 0,
            max_document_mib: 0,
            max_peers_per_document: 0,
            ..self
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        // Destructured in full, so that a new number can't be forgotten.
        let Self {
            listen: _,
            data: _,
            app: _,
            cors_origin: _,
            host: _,
            tls_cert: _,
            tls_key: _,
            hsts_seconds,
            trusted_proxy: _,
            auth: _,
            auth_keys: _,
            auth_issuer: _,
            auth_audience: _,
            auth_leeway_seconds,
            auth_cookie: _,
            operator: _,
            creator: _,
            share: _,
            authorize_url: _,
            authorize_seconds,
            keep_deleted_seconds,
            audit_log: _,
            allow_anyone: _,
            durability: _,
            log_format: _,
            log: _,
            max_connections,
            max_connections_per_address,
            connections_per_second,
            unauthenticated_per_second,
            open_requests_per_second,
            max_connections_per_caller,
            max_open_documents_per_caller,
            requests_per_second,
            messages_per_second,
            received_mib_per_second,
            changes_per_second,
            new_documents_per_minute,
            max_documents_per_principal,
            max_mib_per_principal,
            max_document_mib,
            max_peers_per_document,
            max_documents_per_connection,
            max_message_mib,
            handshake_seconds,
            keep_alive_seconds,
            stall_seconds,
            request_grace_ms,
            idle_seconds,
            documents_mib,
            views_mib,
            cache_mib,
            drain_seconds,
        } = *self;
        let seconds = 1..=MOST_SECONDS;
        let seconds_or_none = 0..=MOST_SECONDS;
        let numbers = [
            (
                "max-connections",
                max_connections as u64,
                1..=MOST_CONNECTIONS,
            ),
            (
                "max-connections-per-address",
                max_connections_per_address as u64,
                0..=MOST_CONNECTIONS,
            ),
            (
                "connections-per-second",
                connections_per_second,
                0..=MOST_RATE,
            ),
            (
                "unauthenticated-per-second",
                unauthenticated_per_second,
                0..=MOST_RATE,
            ),
            (
                "open-requests-per-second",
                open_requests_per_second,
                0..=MOST_RATE,
            ),
            (
                "max-connections-per-caller",
                max_connections_per_caller as u64,
                0..=MOST_CONNECTIONS,
            ),
            (
                "max-open-documents-per-caller",
                max_open_documents_per_caller as u64,
                0..=MOST_DOCUMENTS,
            ),
            ("requests-per-second", requests_per_second, 0..=MOST_RATE),
            ("messages-per-second", messages_per_second, 0..=MOST_RATE),
            (
                "received-mib-per-second",
                received_mib_per_second,
                0..=MOST_RECEIVED_MIB,
            ),
            ("changes-per-second", changes_per_second, 0..=MOST_RATE),
            (
                "new-documents-per-minute",
                new_documents_per_minute,
                0..=MOST_RATE,
            ),
            (
                "max-documents-per-principal",
                max_documents_per_principal,
                0..=MOST_DOCUMENTS,
            ),
            (
                "max-mib-per-principal",
                max_mib_per_principal,
                0..=MOST_STORED_MIB,
            ),
            ("max-document-mib", max_document_mib, 0..=MOST_STORED_MIB),
            (
                "max-peers-per-document",
                max_peers_per_document as u64,
                0..=MOST_CONNECTIONS,
            ),
            (
                "max-documents-per-connection",
                max_documents_per_connection as u64,
                1..=MOST_DOCUMENTS,
            ),
            (
                "max-message-mib",
                max_message_mib as u64,
                1..=MOST_MESSAGE_MIB,
            ),
            (
                "auth-leeway-seconds",
                auth_leeway_seconds,
                0..=MOST_LEEWAY_SECONDS,
            ),
            (
                "authorize-seconds",
                authorize_seconds,
                1..=MOST_AUTHORIZE_SECONDS,
            ),
            ("hsts-seconds", hsts_seconds, 0..=MOST_HSTS_SECONDS),
            (
                "keep-deleted-seconds",
                keep_deleted_seconds,
                0..=MOST_KEEP_DELETED_SECONDS,
            ),
            ("handshake-seconds", handshake_seconds, seconds.clone()),
            ("keep-alive-seconds", keep_alive_seconds, seconds.clone()),
            ("stall-seconds", stall_seconds, seconds),
            (
                "request-grace-ms",
                request_grace_ms,
                0..=1000 * MOST_SECONDS,
            ),
            ("idle-seconds", idle_seconds, seconds_or_none.clone()),
            ("documents-mib", documents_mib as u64, 1..=MOST_MEMORY_MIB),
            ("views-mib", views_mib as u64, 1..=MOST_MEMORY_MIB),
            ("cache-mib", cache_mib as u64, 1..=MOST_MEMORY_MIB),
            ("drain-seconds", drain_seconds, seconds_or_none),
        ];
        for (key, value, range) in numbers {
            if !range.contains(&value) {
                return Err(ConfigError::OutOfRange { key, value, range });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_range() {
        let all = toml::Table::try_from(Config::default()).expect("settings are TOML");
        let numbers = all.iter().filter(|(_, value)| value.is_integer());
        let mut count = 0;
        for (key, _) in numbers {
            count += 1;
            // No number of bytes, timer or semaphore is that large.
            for value in [1_i64 << 44, i64::MAX] {
                let flags = toml::Table::from_iter([(key.clone(), value.into())]);
                let error = Config::load(None, flags).expect_err(key);
                let text = error.to_string();
                assert!(text.contains(key), "{text}");
                assert!(text.contains("must be between"), "{text}");
            }
        }
        assert_eq!(count, 31);
    }

    #[test]
    fn lists_are_read_from_lists_and_from_text_with_commas() {
        for (toml, expected) in [
            ("host = []", &[][..]),
            ("host = 'a.example'", &["a.example"]),
            (
                "host = 'a.example, b.example,'",
                &["a.example", "b.example"],
            ),
            (
                "host = ['a.example', 'b.example']",
                &["a.example", "b.example"],
            ),
        ] {
            let flags: toml::Table = toml.parse().expect("TOML");
            let config = Config::load(None, flags).expect(toml);
            assert_eq!(config.host, expected, "{toml}");
        }
    }

    #[test]
    fn numbers_that_must_not_be_none() {
        for (key, may_be_none) in [
            ("max-connections", false),
            ("stall-seconds", false),
            ("idle-seconds", true),
            ("drain-seconds", true),
        ] {
            let flags = toml::Table::from_iter([(key.to_owned(), 0.into())]);
            assert_eq!(Config::load(None, flags).is_ok(), may_be_none, "{key}");
        }
    }
}
