//! Keys and tokens of one's own: for development, for tests, and for a team without an identity provider.
//!
//! A server never signs: what is made here, `concord token` writes and prints.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use pem::{EncodeConfig, LineEnding, Pem};
use serde_json::{Map, Value as Json, json};

use super::keys::LEAST_SECRET_BYTES;

/// How a token can be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SigningAlgorithm {
    /// Ed25519: short and fast.
    #[value(name = "EdDSA")]
    EdDsa,
    /// ECDSA over P-256.
    #[value(name = "ES256")]
    Es256,
    /// RSA with 2048 bits.
    #[value(name = "RS256")]
    Rs256,
    /// One secret for those who make tokens and those who verify them.
    #[value(name = "HS256")]
    Hs256,
}

/// A key that can't sign.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// Neither a private key nor a secret.
    #[error(
        "neither a private key (PKCS#8 PEM) nor a secret of {LEAST_SECRET_BYTES} bytes or more"
    )]
    Key,
    /// The library could not.
    #[error("signing: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
    /// No random bytes, or what makes keys does not work.
    #[error("no key could be made")]
    Generate,
}

impl From<aws_lc_rs::error::Unspecified> for SigningError {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self::Generate
    }
}

/// A new key, as text for files.
pub struct NewKey {
    /// For whoever makes tokens, and nobody else: PEM. For [`SigningAlgorithm::Hs256`] a JSON Web Key Set.
    pub private: String,
    /// For whoever verifies them: PEM; `None` for a secret, which both have.
    pub public: Option<String>,
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey").finish_non_exhaustive()
    }
}

impl NewKey {
    /// Makes one.
    pub fn generate(algorithm: SigningAlgorithm) -> Result<Self, SigningError> {
        Ok(match algorithm {
            SigningAlgorithm::EdDsa => {
                let pair = Ed25519KeyPair::generate()?;
                Self::of(
                    pair.to_pkcs8v1()?.as_ref(),
                    pair.public_key().as_der()?.as_ref(),
                )
            }
            SigningAlgorithm::Es256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
                Self::of(
                    pair.to_pkcs8v1()?.as_ref(),
                    pair.public_key().as_der()?.as_ref(),
                )
            }
            SigningAlgorithm::Rs256 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048)?;
                let private: Pkcs8V1Der<'_> = pair.as_der()?;
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der()?;
                Self::of(private.as_ref(), public.as_ref())
            }
            SigningAlgorithm::Hs256 => {
                let mut secret = [0; LEAST_SECRET_BYTES];
                aws_lc_rs::rand::fill(&mut secret)?;
                let key =
                    json!({ "kty": "oct", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(secret) });
                Self {
                    private: format!("{}\n", json!({ "keys": [key] })),
                    public: None,
                }
            }
        })
    }

    fn of(private: &[u8], public: &[u8]) -> Self {
        let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
        let text = |label: &str, der: &[u8]| pem::encode_config(&Pem::new(label, der), config);
        Self {
            private: text("PRIVATE KEY", private),
            public: Some(text("PUBLIC KEY", public)),
        }
    }
}

/// Signs claims with the key of a file, as [`NewKey`] has it: a private key as PEM, or a set with a secret as its first key.
pub fn sign(key: &str, claims: &Map<String, Json>) -> Result<String, SigningError> {
    let (algorithm, key) = read(key).ok_or(SigningError::Key)?;
    Ok(jsonwebtoken::encode(&Header::new(algorithm), claims, &key)?)
}

fn read(text: &str) -> Option<(Algorithm, EncodingKey)> {
    if text.trim_start().starts_with('{') {
        let set: Json = serde_json::from_str(text).ok()?;
        let key = set.pointer("/keys/0")?;
        let secret = URL_SAFE_NO_PAD.decode(key.get("k")?.as_str()?).ok()?;
        let is_fit = key.get("kty")? == "oct" && secret.len() >= LEAST_SECRET_BYTES;
        return is_fit.then(|| (Algorithm::HS256, EncodingKey::from_secret(&secret)));
    }
    let bytes = text.as_bytes();
    let read = [
        (Algorithm::EdDSA, EncodingKey::from_ed_pem as fn(&[u8]) -> _),
        (Algorithm::ES256, EncodingKey::from_ec_pem),
        (Algorithm::RS256, EncodingKey::from_rsa_pem),
    ];
    let mut read = read.into_iter();
    read.find_map(|(algorithm, read)| Some((algorithm, read(bytes).ok()?)))
}
