//! What settings say of access. Who is believed: nobody has to say who they are, or tokens signed by keys that were named.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::identity::Identity;
use super::keyring::Pace;
use super::keyring::live::{LiveTokens, StartError};
use super::keyring::source::{self, Source};
use super::keys::{KeyError, KeySet};
use super::policy::{Rules, SettingError};
use super::token::{Expected, TokenError};
use super::webhook::{self, Webhook, WebhookError};
use crate::config::{Auth, Config};

/// Has keys as text.
pub const KEYS_VARIABLE: &str = "CONCORD_AUTH_KEYS_TEXT";

/// Settings by which nobody could be told apart, or that say less than they should.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Nobody can be believed.
    #[error(
        "--auth jwt needs keys: --auth-keys FILE or URL, or the keys themselves in {KEYS_VARIABLE}"
    )]
    NoKeys,
    /// Keys that are used for nothing are a server that is open by mistake.
    #[error("keys are given, and --auth is none: nobody would have to say who they are")]
    UnusedKeys,
    /// Everybody on the network could read and write everything.
    #[error(
        "{listen} can be reached from other machines, where everybody could read, write and remove all documents: \
         nobody has to say who they are. Give --auth jwt and keys, or --allow-anyone if that is meant"
    )]
    OpenToAll {
        /// Where it would listen.
        listen: std::net::SocketAddr,
    },
    /// A page of any site could act as whoever is logged in.
    #[error(
        "--auth-cookie with --cors-origin *: pages of any site could act as whoever visits them"
    )]
    CookieForAnySite,
    /// Nobody has to say who they are, so that nobody can be told from anybody else.
    #[error("--operator, --creator and --share need --auth jwt")]
    NobodyToName,
    /// A setting that names nobody.
    #[error("--{setting}: {error}")]
    Setting {
        /// Which.
        setting: &'static str,
        /// Why not.
        error: SettingError,
    },
    /// Nobody can be asked.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    /// Keys that can't be used.
    #[error("{KEYS_VARIABLE}: {0}")]
    Text(KeyError),
    /// Keys that can't be had.
    #[error(transparent)]
    Keys(#[from] StartError),
}

/// Who may do what, by the settings.
pub fn rules(config: &Config) -> Result<Rules, AuthorityError> {
    if config.auth == Auth::None {
        let Config {
            operator,
            creator,
            share,
            ..
        } = config;
        let is_default = operator.is_empty() && share.is_empty();
        if !is_default || *creator != Config::default().creator {
            return Err(AuthorityError::NobodyToName);
        }
        return Ok(Rules::open());
    }
    Ok(Rules {
        is_open: false,
        operators: parsed("operator", &config.operator)?,
        creators: parsed("creator", &config.creator)?,
        shares: parsed("share", &config.share)?,
    })
}

/// Which application decides that, if one is named.
pub fn webhook(config: &Config) -> Result<Option<Webhook>, WebhookError> {
    let Some(url) = &config.authorize_url else {
        return Ok(None);
    };
    if config.auth == Auth::None {
        return Err(WebhookError::NobodyToAskFor);
    }
    let token = std::env::var(webhook::TOKEN_VARIABLE).ok();
    let holds = Duration::from_secs(config.authorize_seconds);
    Webhook::new(url, token.as_deref(), holds).map(Some)
}

fn parsed<T: FromStr<Err = SettingError>>(
    setting: &'static str,
    texts: &[String],
) -> Result<Vec<T>, AuthorityError> {
    let parsed = texts.iter().map(|text| text.parse());
    let parsed: Result<_, _> = parsed.collect();
    parsed.map_err(|error| AuthorityError::Setting { setting, error })
}

/// Why it is not known who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unidentified {
    /// They said nothing.
    Silent,
    /// What they said is not believed.
    Token(TokenError),
}

/// See the module's docs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Authority(Option<Arc<LiveTokens>>);

impl Authority {
    /// As the settings have it. Reads and fetches the keys that they name, and does so at this pace.
    pub async fn of(config: &Config, pace: Pace) -> Result<Self, AuthorityError> {
        let text = std::env::var(KEYS_VARIABLE).ok();
        let has_keys = !config.auth_keys.is_empty() || text.is_some();
        match config.auth {
            Auth::None if has_keys => return Err(AuthorityError::UnusedKeys),
            Auth::None if config.listen.ip().is_loopback() || config.allow_anyone => {
                return Ok(Self::default());
            }
            Auth::None => {
                let listen = config.listen;
                return Err(AuthorityError::OpenToAll { listen });
            }
            Auth::Jwt if !has_keys => return Err(AuthorityError::NoKeys),
            Auth::Jwt => {}
        }
        if config.auth_cookie.is_some() && config.cors_origin.iter().any(|site| site == "*") {
            return Err(AuthorityError::CookieForAnySite);
        }
        let fixed = text.map_or(Ok(KeySet::default()), |text| KeySet::parse(&text));
        let fixed = fixed.map_err(AuthorityError::Text)?;
        // What is named twice is one.
        let named: BTreeSet<_> = config.auth_keys.iter().collect();
        let sources = named.into_iter().map(|named| {
            Source::of(named, pace.fetch).map_err(|error| StartError::Source {
                from: source::shown(named),
                error,
            })
        });
        let sources = sources.collect::<Result<_, _>>()?;
        let expected = Expected {
            issuer: config.auth_issuer.clone(),
            audiences: config.auth_audience.clone(),
            leeway_seconds: config.auth_leeway_seconds,
        };
        let tokens = LiveTokens::start(fixed, sources, expected, pace).await?;
        Ok(Self(Some(Arc::new(tokens))))
    }

    /// Keeps the keys current, until the server stops. To be called once.
    pub fn keep_current(&self, stop: &CancellationToken) {
        if let Some(tokens) = &self.0 {
            tokio::spawn(Arc::clone(tokens).run(stop.clone()));
        }
    }

    /// Whether nobody has to say who they are.
    pub fn is_open(&self) -> bool {
        self.0.is_none()
    }

    /// Who asks with this token, or without one, at this time in seconds since 1970. Where nobody has to say who they are
    /// a token is not looked at. Waits a little where the token names a key that is not known and may be found.
    pub async fn identify(
        &self,
        token: Option<&str>,
        now_s: u64,
    ) -> Result<Identity, Unidentified> {
        let Some(tokens) = &self.0 else {
            return Ok(Identity::anonymous());
        };
        let token = token.ok_or(Unidentified::Silent)?;
        let claims = tokens.verify(token, now_s).await;
        Ok(claims.map_err(Unidentified::Token)?.into())
    }
}
