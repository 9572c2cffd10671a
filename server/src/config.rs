//! Settings: flags over environment over file over defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

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
    /// When a change is acknowledged and relayed.
    pub durability: Durability,
    /// How the log is written.
    pub log_format: LogFormat,
    /// What is logged: a level, or `tracing` directives such as `info,concord_server::connection=debug`.
    pub log: String,
    /// Connections at a time; more are answered 503.
    pub max_connections: usize,
    /// Documents one connection may have open.
    pub max_documents_per_connection: usize,
    /// Largest WebSocket message in MiB. A document's first upload is one message.
    pub max_message_mib: usize,
    /// Seconds a new connection has to send its request, and then to join.
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
            durability: Durability::Strict,
            log_format: LogFormat::Text,
            log: "info".to_owned(),
            max_connections: 10_000,
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

/// One MiB short of what a WebSocket library can hold as one message.
const MOST_MESSAGE_MIB: u64 = 2047;

/// A tebibyte of memory.
const MOST_MEMORY_MIB: u64 = 1 << 20;

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
                        key != "config" && !key.starts_with(NO_SETTING_PREFIX)
                    })
                    .map(|key| key.as_str().replace('_', "-").into()),
            )
            .merge(Serialized::defaults(flags))
            .extract()
            .map_err(Box::new)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        // Destructured in full, so that a new number can't be forgotten.
        let Self {
            listen: _,
            data: _,
            app: _,
            cors_origin: _,
            host: _,
            durability: _,
            log_format: _,
            log: _,
            max_connections,
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
                "max-documents-per-connection",
                max_documents_per_connection as u64,
                1..=MOST_DOCUMENTS,
            ),
            (
                "max-message-mib",
                max_message_mib as u64,
                1..=MOST_MESSAGE_MIB,
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
        assert_eq!(count, 12);
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
