//! The keys by which tokens are verified: from PEM, or from a JSON Web Key Set (RFC 7517), which may have secrets, too.
//!
//! A key is for one algorithm, whatever a token says: what made the signature is never the token's choice. That a public
//! key would be taken for a secret, or a secret for a key of another kind, is ruled out by that.
//!
//! A secret is told by its form alone (`"kty": "oct"`). If any text could be one, a public key in a form that is not known
//! here would be, and whoever has it, which is everybody, could make tokens.
//!
//! Pure: text in, keys out.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

/// Keys of one set. A token that names no key is tried with all that are for its algorithm.
pub const MOST_KEYS: usize = 64;

/// Bytes of a text with keys.
pub const MOST_KEYS_BYTES: usize = 256 << 10;

/// A secret of HS256 has as many bytes as what it makes, at least (RFC 7518, section 3.2).
pub const LEAST_SECRET_BYTES: usize = 32;

/// An RSA key has at least so many bits (RFC 7518, section 3.3); what verifies takes no shorter ones.
const LEAST_RSA_BYTES: usize = 256;

/// A point of P-256, uncompressed.
const P256_POINT_BYTES: usize = 65;

/// The first and last words of the lines around each key of a PEM file.
const PEM_BEGIN: &str = "-----BEGIN ";
const PEM_END: &str = "-----END ";

/// Keys that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// More bytes than [`MOST_KEYS_BYTES`].
    #[error("more than {} KiB of keys", MOST_KEYS_BYTES >> 10)]
    TooLarge,
    /// More keys than [`MOST_KEYS`].
    #[error("more than {MOST_KEYS} keys")]
    TooMany,
    /// Neither PEM nor JSON.
    #[error("neither PEM (-----BEGIN …) nor a JSON Web Key Set ({{\"keys\": […]}})")]
    Unknown,
    /// JSON, but no key set.
    #[error("not a JSON Web Key Set, by its line {line}, column {column}")]
    Json {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// There is none in it that could verify a token.
    #[error("no key in it is for EdDSA, ES256, RS256 or HS256")]
    None,
    /// A private key: whoever verifies must not be able to sign.
    #[error("key {nth} is a private key: give its public key")]
    Private {
        /// Counted from 1.
        nth: usize,
    },
    /// A PEM block that is no key, or of a kind that is not for tokens.
    #[error("key {nth} is no public key of Ed25519, P-256 or RSA with 2048 bits or more")]
    Unfit {
        /// Counted from 1.
        nth: usize,
    },
    /// A secret that can be guessed.
    #[error("a secret must have at least {LEAST_SECRET_BYTES} bytes, not {bytes}")]
    ShortSecret {
        /// How many it has.
        bytes: usize,
    },
}

/// One key.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// By which tokens name it.
    pub(super) id: Option<String>,
    /// What alone it is for.
    pub(super) algorithm: Algorithm,
    pub(super) verifier: DecodingKey,
}

/// Whose signatures are believed.
#[derive(Debug, Clone, Default)]
pub struct KeySet(Vec<Key>);

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

impl KeySet {
    /// Reads PEM blocks (`PUBLIC KEY`, `RSA PUBLIC KEY`, `CERTIFICATE`) or a JSON Web Key Set. Of a set, keys that are
    /// for something else than verifying tokens are passed over, as sets of identity providers have them.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if text.len() > MOST_KEYS_BYTES {
            return Err(KeyError::TooLarge);
        }
        let keys = if text.trim_start().starts_with('{') {
            json(text)?
        } else if text.contains(PEM_BEGIN) {
            pem(text)?
        } else {
            return Err(KeyError::Unknown);
        };
        match keys.len() {
            0 => Err(KeyError::None),
            1..=MOST_KEYS => Ok(Self(keys)),
            _ => Err(KeyError::TooMany),
        }
    }

    /// These, and those of another.
    pub fn extend(&mut self, other: Self) -> Result<(), KeyError> {
        self.0.extend(other.0);
        (self.0.len() <= MOST_KEYS)
            .then_some(())
            .ok_or(KeyError::TooMany)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether whoever has these could make tokens.
    pub fn has_secrets(&self) -> bool {
        self.0.iter().any(|key| key.algorithm == Algorithm::HS256)
    }

    /// What they are, to be told to operators: the algorithm and the name of each. Nothing of the keys themselves.
    pub fn described(&self) -> Vec<String> {
        let keys = self.0.iter();
        let described = keys.map(|key| match &key.id {
            Some(id) => format!("{:?} {id:?}", key.algorithm),
            None => format!("{:?}", key.algorithm),
        });
        described.collect()
    }

    /// Whether a key has this name.
    pub(super) fn has_name(&self, id: &str) -> bool {
        self.0.iter().any(|key| key.id.as_deref() == Some(id))
    }

    /// Keys that may have signed with this algorithm, under this name. A key without a name may have any.
    pub(super) fn candidates(&self, algorithm: Algorithm, id: Option<&str>) -> Vec<&Key> {
        let of_algorithm = || self.0.iter().filter(|key| key.algorithm == algorithm);
        let Some(id) = id else {
            return of_algorithm().collect();
        };
        let named: Vec<_> = of_algorithm()
            .filter(|key| key.id.as_deref() == Some(id))
            .collect();
        if named.is_empty() {
            of_algorithm().filter(|key| key.id.is_none()).collect()
        } else {
            named
        }
    }
}

fn json(text: &str) -> Result<Vec<Key>, KeyError> {
    // The library's own words have what is there, which may be long, or secret.
    let set: Set = serde_json::from_str(text).map_err(|error| KeyError::Json {
        line: error.line(),
        column: error.column(),
    })?;
    let mut keys = Vec::new();
    for (nth, value) in (1..).zip(set.keys) {
        // A secret has no public part; of all others this is the private one.
        if value.get("d").is_some() {
            return Err(KeyError::Private { nth });
        }
        // One that no library knows is as one that is for something else.
        let Ok(jwk) = Jwk::deserialize(value) else {
            continue;
        };
        if is_for_verifying(&jwk) {
            keys.extend(of_jwk(&jwk)?);
        }
    }
    Ok(keys)
}

fn is_for_verifying(jwk: &Jwk) -> bool {
    let usage = jwk.common.public_key_use.as_ref();
    let operations = jwk.common.key_operations.as_ref();
    usage.is_none_or(|usage| *usage == PublicKeyUse::Signature)
        && operations.is_none_or(|all| all.contains(&KeyOperations::Verify))
}

fn of_jwk(jwk: &Jwk) -> Result<Option<Key>, KeyError> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::OctetKey(_) => Algorithm::HS256,
        _ => return Ok(None),
    };
    let named = jwk.common.key_algorithm;
    if named.is_some_and(|named| named.to_string() != format!("{algorithm:?}")) {
        return Ok(None);
    }
    let Ok(key) = DecodingKey::from_jwk(jwk) else {
        return Ok(None);
    };
    let id = jwk.common.key_id.clone();
    if algorithm == Algorithm::HS256 {
        let bytes = key.try_get_as_bytes().map_or(0, <[u8]>::len);
        return hmac(key, bytes, id).map(Some);
    }
    Ok(is_fit(&key).then_some(Key {
        id,
        algorithm,
        verifier: key,
    }))
}

fn hmac(key: DecodingKey, bytes: usize, id: Option<String>) -> Result<Key, KeyError> {
    if bytes < LEAST_SECRET_BYTES {
        return Err(KeyError::ShortSecret { bytes });
    }
    Ok(Key {
        id,
        algorithm: Algorithm::HS256,
        verifier: key,
    })
}

/// Of the size that its algorithm takes: what verifies would say no more than that no signature is right.
fn is_fit(key: &DecodingKey) -> bool {
    use jsonwebtoken::{AlgorithmFamily as Family, DecodingKeyKind as Kind};
    match (key.family(), key.kind()) {
        (Family::Ec, Kind::SecretOrDer(point)) => point.len() == P256_POINT_BYTES,
        (Family::Ed, Kind::SecretOrDer(point)) => point.len() == 32,
        (Family::Rsa, Kind::RsaModulusExponent { n, .. }) => {
            let zeros = n.iter().take_while(|byte| **byte == 0).count();
            n.len() - zeros >= LEAST_RSA_BYTES
        }
        (Family::Rsa, Kind::SecretOrDer(der)) => der.len() >= LEAST_RSA_BYTES,
        _ => false,
    }
}

fn pem(text: &str) -> Result<Vec<Key>, KeyError> {
    let mut keys = Vec::new();
    for (nth, block) in (1..).zip(text.split(PEM_BEGIN).skip(1)) {
        let end = block.find(PEM_END).and_then(|at| {
            let rest = block.get(at + PEM_END.len()..)?;
            Some(at + PEM_END.len() + rest.find("-----")? + 5)
        });
        let block = end.and_then(|end| block.get(..end));
        let block = block.ok_or(KeyError::Unfit { nth })?;
        let label = block.lines().next().unwrap_or_default();
        if label.contains("PRIVATE") {
            return Err(KeyError::Private { nth });
        }
        let block = format!("{PEM_BEGIN}{block}");
        let key = [
            (Algorithm::EdDSA, DecodingKey::from_ed_pem as fn(&[u8]) -> _),
            (Algorithm::ES256, DecodingKey::from_ec_pem),
            (Algorithm::RS256, DecodingKey::from_rsa_pem),
        ]
        .into_iter()
        .find_map(|(algorithm, read)| {
            let key = read(block.as_bytes()).ok().filter(is_fit)?;
            let id = None;
            Some(Key {
                id,
                algorithm,
                verifier: key,
            })
        });
        keys.push(key.ok_or(KeyError::Unfit { nth })?);
        if keys.len() > MOST_KEYS {
            return Err(KeyError::TooMany);
        }
    }
    Ok(keys)
}
