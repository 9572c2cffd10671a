//! Whoever makes the tokens that a server believes.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use concord_server::access::signing::{NewKey, SigningAlgorithm, sign};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

/// Long enough for any test.
const HOUR_S: u64 = 3600;

/// See the module's docs.
#[derive(Debug)]
pub struct Issuer {
    key: NewKey,
    keys: NamedTempFile,
}

impl Issuer {
    /// With a key of its own.
    pub fn new() -> Result<Self> {
        let key = NewKey::generate(SigningAlgorithm::EdDsa)?;
        let mut keys = NamedTempFile::new()?;
        let public = key.public.as_deref().context("a public key")?;
        keys.write_all(public.as_bytes())?;
        Ok(Self { key, keys })
    }

    /// What tells a server to believe this one, and other arguments.
    pub fn arguments<'a>(&'a self, others: &[&'a str]) -> Result<Vec<&'a str>> {
        let path = self.keys.path().to_str().context("a path")?;
        let mut all = vec!["--auth", "jwt", "--auth-keys", path];
        all.extend(["--auth-leeway-seconds", "0"]);
        all.extend(others);
        Ok(all)
    }

    /// A token that claims this.
    pub fn token(&self, claims: &Value) -> Result<String> {
        let claims = claims.as_object().context("an object")?;
        Ok(sign(&self.key.private, claims)?)
    }

    /// A principal's token for an hour.
    pub fn of(&self, principal: &str) -> Result<String> {
        self.of_member(principal, &[])
    }

    /// The same, who is a member of groups.
    pub fn of_member(&self, principal: &str, groups: &[&str]) -> Result<String> {
        let exp = now_s()? + HOUR_S;
        self.token(&json!({ "sub": principal, "groups": groups, "exp": exp }))
    }

    /// A principal's token for some seconds.
    pub fn for_seconds(&self, principal: &str, seconds: u64) -> Result<String> {
        let exp = now_s()? + seconds;
        self.token(&json!({ "sub": principal, "exp": exp }))
    }

    /// A principal's token that grants roles by itself.
    pub fn granting(&self, principal: &str, grants: &Value) -> Result<String> {
        let exp = now_s()? + HOUR_S;
        self.token(&json!({ "sub": principal, "grants": grants, "exp": exp }))
    }
}

fn now_s() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}
