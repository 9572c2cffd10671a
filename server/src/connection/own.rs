//! Concord's own messages, beside those of the automerge-repo protocol: JSON in text frames, which that protocol does not
//! have, so that neither can be taken for the other. Who does not know of them never gets one: the server sends none but
//! in answer.
//!
//! There is one: a new token for the session, before the old one expires (`PROTOCOL.md`, "Renewing a token").

use axum::extract::ws::{Message as Frame, Utf8Bytes};
use bytes::Bytes;
use concord_shared::json;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::access::token::MOST_TOKEN_BYTES;
use crate::access::{Identity, Unidentified};
use crate::clock::signed_ms;
use crate::http::authenticate;
use crate::object::Object;

/// Bytes of a message: a token, and what is around it. One with a larger token is still read, to be told so.
const MOST_BYTES: usize = 2 * MOST_TOKEN_BYTES;

/// A message, either way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spoken {
    /// Of the protocol: a binary frame.
    Wire(Bytes),
    /// One of Concord's own: a text frame.
    Own(Utf8Bytes),
}

impl Spoken {
    /// Bytes of it.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Wire(bytes) => bytes.len(),
            Self::Own(text) => text.len(),
        }
    }

    /// It, if it is of the protocol.
    pub fn wire(self) -> Option<Bytes> {
        match self {
            Self::Wire(bytes) => Some(bytes),
            Self::Own(_) => None,
        }
    }
}

impl From<Spoken> for Frame {
    fn from(spoken: Spoken) -> Self {
        match spoken {
            Spoken::Wire(bytes) => Self::Binary(bytes),
            Spoken::Own(text) => Self::Text(text),
        }
    }
}

/// What a client says.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Said {
    /// Who it is, anew.
    Token {
        /// As it would be given to open a connection.
        token: String,
    },
}

/// What it is answered.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Answer {
    /// To a token.
    Token(Renewed),
}

/// What became of a token.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Renewed {
    /// It holds.
    Until {
        /// To when (RFC 3339); null, where nobody has to say who they are.
        until: Json,
    },
    /// It does not, and what was before it goes on to hold.
    Refused {
        /// As over HTTP.
        code: &'static str,
        /// For people.
        detail: String,
    },
}

impl Said {
    /// What a text frame says, if that is anything.
    pub fn read(text: &str) -> Option<Self> {
        if text.len() > MOST_BYTES {
            return None;
        }
        let said: Object<Self> = serde_json::from_str(text).ok()?;
        Some(said.0)
    }
}

impl Answer {
    /// As it is sent.
    pub fn text(&self) -> String {
        // Maps of text to text can't fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Who a connection is of from here on, where `now` was shown in place of `before`. A session stays whose it is: what is
/// waited for and counted goes by their name.
pub fn renewed(
    before: &Identity,
    now: Result<Identity, Unidentified>,
) -> Result<Identity, Renewed> {
    let now = now.map_err(|why| {
        let (code, detail) = authenticate::refusal(why);
        Renewed::Refused { code, detail }
    })?;
    if now.principal != before.principal {
        return Err(Renewed::Refused {
            code: "token-principal",
            detail: "the token is somebody else's".to_owned(),
        });
    }
    Ok(Identity {
        trail: before.trail.clone(),
        ..now
    })
}

impl Renewed {
    /// It is good.
    pub fn until(identity: &Identity) -> Self {
        let ms = identity.until_s.map(|until_s| until_s.saturating_mul(1000));
        Self::Until {
            until: ms.map_or(Json::Null, |ms| json::timestamp(signed_ms(ms))),
        }
    }
}

#[cfg(test)]
mod tests {
    use concord_shared::ids::PrincipalId;
    use serde_json::json;

    use super::*;
    use crate::access::TokenError;

    fn who(name: &str, until_s: u64) -> Identity {
        Identity {
            principal: PrincipalId::new(name).expect("a name"),
            until_s: Some(until_s),
            ..Identity::anonymous()
        }
    }

    #[test]
    fn a_token_is_read_and_nothing_else() {
        let token = "a.b.c".to_owned();
        let said = Said::read(r#"{"type":"token","token":"a.b.c"}"#);
        assert_eq!(said, Some(Said::Token { token }));
        let long = format!(r#"{{"type":"token","token":"{}"}}"#, "x".repeat(MOST_BYTES));
        for bad in [
            "",
            "hello",
            r#"{"type":"token"}"#,
            r#"["token","a.b.c"]"#,
            r#"{"token":"a.b.c"}"#,
            r#"{"type":"join","token":"a"}"#,
            r#"{"type":"token","token":"a","more":1}"#,
            r#"{"type":"token","token":"a"} "b""#,
            &long,
        ] {
            assert_eq!(Said::read(bad), None, "{bad:.40}");
        }
    }

    #[test]
    fn a_session_stays_whose_it_is() {
        let ann = who("ann", 100);
        let later = renewed(&ann, Ok(who("ann", 200))).expect("it is hers");
        assert_eq!(later.until_s, Some(200));
        let shown = |renewed: Renewed| {
            let text = Answer::Token(renewed).text();
            serde_json::from_str::<Json>(&text).expect("JSON")
        };
        assert_eq!(
            shown(Renewed::until(&later)),
            json!({"type": "token", "until": "1970-01-01T00:03:20.000Z"})
        );
        let anonymous = Renewed::until(&Identity::anonymous());
        assert_eq!(shown(anonymous), json!({"type": "token", "until": null}));
        let code = |now| match renewed(&ann, now) {
            Err(refused) => shown(refused)["code"].clone(),
            Ok(identity) => panic!("{identity:?}"),
        };
        assert_eq!(code(Ok(who("bob", 200))), "token-principal");
        let expired = Err(Unidentified::Token(TokenError::Expired));
        assert_eq!(code(expired), "token-expired");
    }
}
