//! Tokens: JSON Web Tokens (RFC 7519), signed, by which callers say who they are.
//!
//! What is checked, in this order, each with a code of its own: size and form, the algorithm, which key, its signature,
//! and only then what is claimed: issuer, audience, whether the rest is there and of its kind, times. Nothing of a token is believed before its signature is.
//!
//! Pure: the time is an argument.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use concord_shared::access::Role;
use concord_shared::ids::PrincipalId;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::keys::KeySet;
use super::policy::Claimed;
use crate::object::Object;

/// Bytes of a token. Those of people in hundreds of groups have some thousands.
pub const MOST_TOKEN_BYTES: usize = 8 << 10;

/// Groups of one principal.
pub const MOST_GROUPS: usize = 512;

/// Documents and beginnings of ids to which one token grants something.
pub const MOST_CLAIMED: usize = 256;

/// Seconds that the clock of whoever made a token may be off, at most.
pub const MOST_LEEWAY_SECONDS: u64 = 600;

/// Why a token is not believed. Whoever brought it is told the code, and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TokenError {
    /// Above [`MOST_TOKEN_BYTES`].
    #[error("the token has more than {} KiB", MOST_TOKEN_BYTES >> 10)]
    TooLarge,
    /// Not three parts in base64url, or no JSON in them, or parts that must be understood and are not.
    #[error("not a signed JSON Web Token")]
    Malformed,
    /// Not signed (`none`), or in a way for which there is no key here.
    #[error("the token is signed in a way that is not taken")]
    Algorithm,
    /// It names a key that is not known.
    #[error("the token is signed by a key that is not known")]
    UnknownKey,
    /// Somebody else made it, or it was changed.
    #[error("the token's signature is wrong")]
    Signature,
    /// Made by another issuer, or does not say by whom.
    #[error("the token is from another issuer")]
    Issuer,
    /// Made for somebody else, or does not say for whom.
    #[error("the token is for another audience")]
    Audience,
    /// It has no time of expiry, no subject, or claims of the wrong kind.
    #[error("the token has no expiry, no subject, or one that can't be used")]
    Claims,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    NotYet,
}

/// What a token must say. What is not set here is not asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expected {
    /// Who made it, by `iss`. One alone: what names somebody among the principals of one issuer names somebody else among
    /// those of another.
    pub issuer: Option<String>,
    /// For whom it was made, by `aud`: one of these. A token that names an audience is for nobody else, so one is refused
    /// where none is set here.
    pub audiences: Vec<String>,
    /// Seconds that clocks may be apart.
    pub leeway_seconds: u64,
}

/// What a token says that is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `sub`.
    pub principal: PrincipalId,
    /// `groups`, in the order of the token.
    pub groups: Arc<[String]>,
    /// `grants`, if it says anything of them.
    pub claimed: Option<Arc<Claimed>>,
    /// Until when, in seconds since 1970, leeway included.
    pub until_s: u64,
}

/// Who is believed, and what must be said.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    /// Whose signatures.
    pub keys: KeySet,
    /// And what else.
    pub expected: Expected,
}

#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    /// There, whatever it is.
    #[serde(default, deserialize_with = "some")]
    crit: Option<Value>,
}

/// What says `null` says something.
fn some<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

/// As anything may be in the place of each, its own error tells which is wrong.
#[derive(Deserialize)]
struct Payload {
    #[serde(default)]
    iss: Value,
    #[serde(default)]
    aud: Value,
    #[serde(default)]
    exp: Value,
    #[serde(default)]
    nbf: Value,
    #[serde(default)]
    sub: Value,
    #[serde(default)]
    groups: Value,
    #[serde(default, deserialize_with = "some")]
    grants: Option<Value>,
}

impl Tokens {
    /// Who brings the token, at this time in seconds since 1970.
    pub fn verify(&self, token: &str, now_s: u64) -> Result<Claims, TokenError> {
        if token.len() > MOST_TOKEN_BYTES {
            return Err(TokenError::TooLarge);
        }
        let head = head(token)?;
        let algorithm = match head.alg.as_str() {
            "EdDSA" => Algorithm::EdDSA,
            "ES256" => Algorithm::ES256,
            "RS256" => Algorithm::RS256,
            "HS256" => Algorithm::HS256,
            _ => return Err(TokenError::Algorithm),
        };
        // What is not asked for here must be of its kind all the same.
        jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        // A name that no key has may be that of a new one, of whatever kind.
        let is_new = head
            .kid
            .as_deref()
            .is_some_and(|id| !self.keys.has_name(id));
        if !is_new && self.keys.candidates(algorithm, None).is_empty() {
            return Err(TokenError::Algorithm);
        }
        let keys = self.keys.candidates(algorithm, head.kid.as_deref());
        // What is claimed is checked below, in one order, and by our own clock.
        let mut validation = Validation::new(algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let mut why = TokenError::UnknownKey;
        for key in keys {
            match jsonwebtoken::decode::<Object<Payload>>(token, &key.verifier, &validation) {
                Ok(decoded) => return self.claims(&decoded.claims.0, now_s),
                Err(error) => why = reason(error.kind()),
            }
            if why != TokenError::Signature {
                break;
            }
        }
        // That keys without a name did not fit says nothing of the one that was named.
        match why {
            TokenError::Signature if is_new => Err(TokenError::UnknownKey),
            why => Err(why),
        }
    }

    fn claims(&self, payload: &Payload, now_s: u64) -> Result<Claims, TokenError> {
        let Payload {
            iss,
            aud,
            exp,
            nbf,
            sub,
            groups,
            grants,
        } = payload;
        let Expected {
            issuer,
            audiences,
            leeway_seconds,
        } = &self.expected;
        if issuer.is_some() && iss.as_str() != issuer.as_deref() {
            return Err(TokenError::Issuer);
        }
        let is_ours = |one: &Value| one.as_str().is_some_and(|one| is_among(audiences, one));
        let is_for_us = match aud {
            Value::Null => audiences.is_empty(),
            Value::Array(all) => all.iter().any(is_ours),
            one => is_ours(one),
        };
        if !is_for_us {
            return Err(TokenError::Audience);
        }
        let until_s = whole_seconds(exp, f64::floor).ok_or(TokenError::Claims)?;
        let until_s = until_s.saturating_add(*leeway_seconds);
        let since_s = match nbf {
            Value::Null => 0,
            nbf => whole_seconds(nbf, f64::ceil).ok_or(TokenError::Claims)?,
        };
        let principal = sub.as_str().and_then(|sub| PrincipalId::new(sub).ok());
        // Nobody is nobody in particular.
        let principal = principal.filter(|principal| *principal != PrincipalId::anonymous());
        let principal = principal.ok_or(TokenError::Claims)?;
        let groups = match groups {
            Value::Null => Some(Vec::new()),
            groups => Vec::<String>::deserialize(groups).ok(),
        };
        let groups = groups.filter(|groups| groups.len() <= MOST_GROUPS);
        let groups = groups.ok_or(TokenError::Claims)?;
        let claimed = match grants {
            None => None,
            Some(grants) => {
                let grants = BTreeMap::<String, Role>::deserialize(grants);
                let grants = grants.map_err(|_| TokenError::Claims)?;
                Some(Arc::new(Claimed(grants.into_iter().collect())))
            }
        };
        if claimed
            .as_ref()
            .is_some_and(|claimed| claimed.0.len() > MOST_CLAIMED)
        {
            return Err(TokenError::Claims);
        }
        if now_s >= until_s {
            return Err(TokenError::Expired);
        }
        if now_s.saturating_add(*leeway_seconds) < since_s {
            return Err(TokenError::NotYet);
        }
        Ok(Claims {
            principal,
            groups: groups.into(),
            claimed,
            until_s,
        })
    }
}

fn is_among(all: &[String], one: &str) -> bool {
    all.iter().any(|known| known == one)
}

fn head(token: &str) -> Result<Head, TokenError> {
    let mut parts = token.split('.');
    let (Some(head), Some(_), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenError::Malformed);
    };
    let head = URL_SAFE_NO_PAD.decode(head);
    let head = head.map_err(|_| TokenError::Malformed)?;
    let head = serde_json::from_slice::<Object<Head>>(&head);
    let Object(head) = head.map_err(|_| TokenError::Malformed)?;
    // RFC 7515, section 4.1.11: none of what it could name is understood here.
    if head.crit.is_some() || !head.typ.as_deref().is_none_or(is_of_access) {
        return Err(TokenError::Malformed);
    }
    Ok(head)
}

/// Who signs tokens like these signs others, too, that say something else: that somebody logged out, say, or has a key (RFC
/// 8725, section 3.11).
fn is_of_access(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    let kind = typ.strip_prefix("application/").unwrap_or(&typ);
    matches!(kind, "jwt" | "at+jwt")
}

/// Times may have fractions (RFC 7519, section 2), which are rounded so that a token is never good for longer. Up to the
/// year 9999, as no clock here goes further.
fn whole_seconds(time: &Value, round: fn(f64) -> f64) -> Option<u64> {
    let time = time.as_f64().map(round)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within these bounds"
    )]
    (0.0..253_402_300_800.0)
        .contains(&time)
        .then_some(time as u64)
}

fn reason(error: &ErrorKind) -> TokenError {
    match error {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::InvalidAlgorithm => TokenError::Algorithm,
        // The head was readable, so it is what is claimed; and the signature is right, or that would be told.
        ErrorKind::Json(_) => TokenError::Claims,
        _ => TokenError::Malformed,
    }
}

#[cfg(test)]
mod tests;
