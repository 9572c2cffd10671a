use std::sync::LazyLock;

use serde_json::{Value as Json, json};

use super::*;
use crate::access::keys::KeyError;
use crate::access::signing::{NewKey, SigningAlgorithm, sign};

const NOW_S: u64 = 1_800_000_000;

/// One key of each kind, made once.
static KEYS: LazyLock<[NewKey; 4]> = LazyLock::new(|| {
    [
        SigningAlgorithm::EdDsa,
        SigningAlgorithm::Es256,
        SigningAlgorithm::Rs256,
        SigningAlgorithm::Hs256,
    ]
    .map(|algorithm| NewKey::generate(algorithm).unwrap())
});

fn set_of(key: &NewKey) -> KeySet {
    KeySet::parse(key.public.as_ref().unwrap_or(&key.private)).unwrap()
}

/// All four, an issuer, an audience, a minute's leeway.
fn tokens() -> Tokens {
    let mut keys = KeySet::default();
    for key in &*KEYS {
        keys.extend(set_of(key)).unwrap();
    }
    Tokens {
        keys,
        expected: Expected {
            issuer: Some("https://id.example".to_owned()),
            audiences: vec!["concord".to_owned()],
            leeway_seconds: 60,
        },
    }
}

fn good() -> Json {
    json!({
        "iss": "https://id.example", "aud": ["x", "concord"], "sub": "ann",
        "exp": NOW_S + 100, "nbf": NOW_S - 100, "groups": ["board", "staff"],
    })
}

fn signed(key: &NewKey, claims: &Json) -> String {
    sign(&key.private, claims.as_object().unwrap()).unwrap()
}

/// The claims of [`good`], and these instead; null removes.
fn with(changes: &Json) -> Json {
    let mut claims = good();
    json_patch::merge(&mut claims, changes);
    claims
}

#[test]
fn each_kind_of_signature_is_believed_by_its_own_key_alone() {
    for (nth, key) in KEYS.iter().enumerate() {
        let token = signed(key, &good());
        let claims = tokens().verify(&token, NOW_S).unwrap();
        assert_eq!(claims.principal.as_str(), "ann");
        assert_eq!(*claims.groups, ["board".to_owned(), "staff".to_owned()]);
        assert_eq!(claims.until_s, NOW_S + 160);
        for (other, other_key) in KEYS.iter().enumerate() {
            let mut tokens = tokens();
            tokens.keys = set_of(other_key);
            let expected = if other == nth {
                Ok(())
            } else {
                Err(TokenError::Algorithm)
            };
            assert_eq!(tokens.verify(&token, NOW_S).map(|_| ()), expected);
        }
    }
    for algorithm in [
        SigningAlgorithm::EdDsa,
        SigningAlgorithm::Es256,
        SigningAlgorithm::Rs256,
    ] {
        let stranger = NewKey::generate(algorithm).unwrap();
        let error = tokens().verify(&signed(&stranger, &good()), NOW_S);
        assert_eq!(error, Err(TokenError::Signature));
    }
}

#[test]
fn what_is_claimed_is_checked_one_by_one() {
    use TokenError as E;
    let cases = [
        (json!({ "iss": "https://id.example.org" }), E::Issuer),
        (json!({ "iss": null }), E::Issuer),
        (json!({ "iss": 5 }), E::Issuer),
        (json!({ "aud": "other" }), E::Audience),
        (json!({ "aud": null }), E::Audience),
        (json!({ "aud": [] }), E::Audience),
        (json!({ "aud": 5 }), E::Audience),
        (json!({ "aud": { "concord": 1 } }), E::Audience),
        // The first that is wrong is told.
        (
            json!({ "iss": 5, "aud": 5, "exp": 0, "sub": "" }),
            E::Issuer,
        ),
        (json!({ "aud": 5, "exp": 0, "sub": "" }), E::Audience),
        (json!({ "exp": 0, "sub": "" }), E::Claims),
        (json!({ "exp": NOW_S - 60 }), E::Expired),
        (json!({ "exp": null }), E::Claims),
        (json!({ "exp": "never" }), E::Claims),
        (json!({ "exp": -1 }), E::Claims),
        (json!({ "exp": 1e300 }), E::Claims),
        (json!({ "nbf": NOW_S + 61 }), E::NotYet),
        (json!({ "nbf": 1_800_000_060.5 }), E::NotYet),
        (json!({ "nbf": "now" }), E::Claims),
        (json!({ "nbf": 1e300 }), E::Claims),
        (json!({ "sub": null }), E::Claims),
        (json!({ "sub": "" }), E::Claims),
        (json!({ "sub": 5 }), E::Claims),
        (json!({ "sub": "a\u{0}b" }), E::Claims),
        (json!({ "sub": "a".repeat(257) }), E::Claims),
        (json!({ "sub": "anonymous" }), E::Claims),
        (json!({ "groups": "board" }), E::Claims),
        (json!({ "groups": vec!["g"; MOST_GROUPS + 1] }), E::Claims),
    ];
    for (changes, expected) in cases {
        let token = signed(&KEYS[0], &with(&changes));
        assert_eq!(tokens().verify(&token, NOW_S), Err(expected), "{changes}");
    }
    // As if it were not there, it would give what lists say.
    let mut nothing = good();
    nothing["grants"] = json!(null);
    let token = signed(&KEYS[0], &nothing);
    assert_eq!(tokens().verify(&token, NOW_S), Err(E::Claims));
    for changes in [
        json!({ "aud": "concord" }),
        json!({ "exp": NOW_S - 59 }),
        json!({ "exp": 1_800_000_000.5 }),
        json!({ "nbf": NOW_S + 60 }),
        json!({ "nbf": null }),
        json!({ "groups": null }),
        json!({ "groups": vec!["g"; MOST_GROUPS] }),
        json!({ "and": { "what": ["else", "there", "is"] } }),
    ] {
        let token = signed(&KEYS[0], &with(&changes));
        let taken = tokens().verify(&token, NOW_S);
        assert_eq!(taken.map(|_| ()), Ok(()), "{changes}");
    }
}

#[test]
fn a_token_for_somebody_is_for_nobody_else() {
    let mut tokens = tokens();
    tokens.expected = Expected::default();
    let token = signed(&KEYS[0], &good());
    assert_eq!(tokens.verify(&token, NOW_S), Err(TokenError::Audience));
    for aud in [json!(5), json!({}), json!([]), json!("")] {
        let token = signed(&KEYS[0], &with(&json!({ "aud": aud })));
        assert_eq!(tokens.verify(&token, NOW_S), Err(TokenError::Audience));
    }
    let token = signed(&KEYS[0], &with(&json!({ "aud": null, "iss": null })));
    assert!(tokens.verify(&token, NOW_S).is_ok());
}

fn part(json: &Json) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

/// What attackers send who have no key.
#[test]
fn what_is_forged_is_refused() {
    use TokenError as E;
    let [ed, _, rsa, _] = &*KEYS;
    let token = signed(ed, &good());
    let parts: Vec<_> = token.split('.').collect();
    let [_, claims, signature] = parts[..] else {
        panic!("three parts");
    };
    for alg in [
        "none", "None", "NONE", "nOnE", "", "HS384", "ES384", "PS256", "EdDSA ",
    ] {
        let head = part(&json!({ "alg": alg, "typ": "JWT" }));
        for signature in ["", signature] {
            let forged = format!("{head}.{claims}.{signature}");
            assert_eq!(tokens().verify(&forged, NOW_S), Err(E::Algorithm), "{alg}");
        }
    }
    // The public key, which everybody knows, taken as a secret.
    let public = rsa.public.as_deref().unwrap();
    for secret in [public, public.trim()] {
        let head = json!({ "alg": "HS256", "typ": "JWT" });
        let message = format!("{}.{}", part(&head), part(&good()));
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        let made = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
        let forged = format!("{message}.{}", made.unwrap());
        let mut by_rsa = tokens();
        by_rsa.keys = set_of(rsa);
        assert_eq!(by_rsa.verify(&forged, NOW_S), Err(E::Algorithm));
        assert_eq!(tokens().verify(&forged, NOW_S), Err(E::Signature));
    }
    // One brought along, or named.
    for head in [
        json!({ "alg": "EdDSA", "jwk": { "kty": "OKP", "crv": "Ed25519", "x": "A".repeat(43) } }),
        json!({ "alg": "EdDSA", "jku": "https://evil.example/keys", "x5u": "https://evil.example" }),
        json!({ "alg": "EdDSA", "kid": "../../dev/null" }),
    ] {
        let forged = format!("{}.{claims}.{}", part(&head), "A".repeat(86));
        let expected = match head.get("kid") {
            Some(_) => E::UnknownKey,
            None => E::Signature,
        };
        assert_eq!(tokens().verify(&forged, NOW_S), Err(expected), "{head}");
    }
    for crit in [json!(["b64"]), json!([]), json!(null)] {
        let critical = json!({ "alg": "EdDSA", "crit": crit, "b64": false });
        let forged = format!("{}.{claims}.{signature}", part(&critical));
        assert_eq!(tokens().verify(&forged, NOW_S), Err(E::Malformed), "{crit}");
    }
    // Of the same issuer, for something else.
    for (typ, expected) in [
        ("logout+jwt", E::Malformed),
        ("application/dpop+jwt", E::Malformed),
        ("", E::Malformed),
        ("jwt", E::Signature),
        ("application/at+jwt", E::Signature),
    ] {
        let head = part(&json!({ "alg": "EdDSA", "typ": typ }));
        let forged = format!("{head}.{claims}.{signature}");
        assert_eq!(tokens().verify(&forged, NOW_S), Err(expected), "{typ}");
    }
    // Of which a byte is another, wherever it is.
    for at in 0..token.len() {
        let mut forged = token.clone().into_bytes();
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(forged).unwrap();
        assert!(tokens().verify(&forged, NOW_S).is_err(), "{at}: {forged}");
    }
}

/// An array of the claims' values, in whichever order they may be read, says nothing.
#[test]
fn claims_are_an_object() {
    let secret = [7; 32];
    let k = URL_SAFE_NO_PAD.encode(secret);
    let set = json!({ "keys": [{ "kty": "oct", "k": k }] });
    let tokens = Tokens {
        keys: KeySet::parse(&set.to_string()).unwrap(),
        expected: Expected::default(),
    };
    let verified = |claims: &Json| {
        let message = format!("{}.{}", part(&json!({ "alg": "HS256" })), part(claims));
        let key = jsonwebtoken::EncodingKey::from_secret(&secret);
        let made = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
        tokens.verify(&format!("{message}.{}", made.unwrap()), NOW_S)
    };
    let exp = NOW_S + 100;
    assert!(verified(&json!({ "sub": "ann", "exp": exp })).is_ok());
    // What is behind them may be missing in one.
    let array = json!([null, null, exp, null, "ann"]);
    assert_eq!(verified(&array), Err(TokenError::Claims));
}

#[test]
fn what_is_no_token_is_refused_by_its_form() {
    use TokenError as E;
    let token = signed(&KEYS[0], &good());
    for text in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "a.b.c".to_owned(),
        format!("{token}."),
        format!("{token}.x.y"),
        format!("Bearer {token}"),
        token.replace('.', "="),
        format!("{}.x.y", part(&json!([]))),
        format!("{}.x.y", part(&json!(["EdDSA", null, null]))),
        format!("{}.x.y", part(&json!({ "alg": 5 }))),
        format!("{}.x.y", part(&json!({ "alg": "EdDSA", "typ": 5 }))),
        format!("{}.x.y", part(&json!({ "alg": "EdDSA", "jwk": 5 }))),
        format!("{}.x.y", URL_SAFE_NO_PAD.encode("[".repeat(5000))),
        format!(
            "{}.x.y",
            URL_SAFE_NO_PAD.encode(b"{\"alg\":\"EdDSA\",\"alg\":\"none\"}")
        ),
        "\u{1F511}.\u{1F511}.\u{1F511}".to_owned(),
    ] {
        assert_eq!(tokens().verify(&text, NOW_S), Err(E::Malformed), "{text}");
    }
    let head = part(&json!({ "alg": "EdDSA" }));
    for rest in ["!.!", "e30.!", "e30.AA", &format!("e30.{}", "A".repeat(86))] {
        let error = tokens()
            .verify(&format!("{head}.{rest}"), NOW_S)
            .unwrap_err();
        assert!(
            matches!(error, E::Malformed | E::Signature),
            "{rest}: {error}"
        );
    }
    for bytes in [MOST_TOKEN_BYTES + 1, 1 << 20] {
        let error = tokens().verify(&"a".repeat(bytes), NOW_S);
        assert_eq!(error, Err(E::TooLarge));
    }
}

#[test]
fn keys_are_found_by_their_names() {
    let [ed, ..] = &*KEYS;
    let jwk = |key: &NewKey, more: Json| {
        let key = jsonwebtoken::DecodingKey::from_ed_pem(key.public.as_deref().unwrap().as_bytes());
        let jwk = jsonwebtoken::jwk::Jwk::from_decoding_key(&key.unwrap(), None).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        json_patch::merge(&mut jwk, &more);
        jwk
    };
    let next = NewKey::generate(SigningAlgorithm::EdDsa).unwrap();
    let set = |keys: Json| KeySet::parse(&json!({ "keys": keys }).to_string());
    let both = set(json!([
        jwk(ed, json!({ "kid": "now", "use": "sig", "alg": "EdDSA" })),
        jwk(&next, json!({ "kid": "next" })),
        // Passed over.
        jwk(&next, json!({ "kid": "enc", "use": "enc" })),
        jwk(&next, json!({ "kid": "other", "alg": "ES256" })),
        jwk(&next, json!({ "kid": "ops", "key_ops": ["sign"] })),
        { "kty": "AKP", "alg": "ML-DSA-44", "pub": "x" },
        { "kty": "EC", "crv": "P-521", "x": "AA", "y": "AA" },
        { "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA" },
        { "kty": "RSA", "n": "AQAB", "e": "AQAB" },
        5,
    ]))
    .unwrap();
    assert_eq!(both.described(), ["EdDSA \"now\"", "EdDSA \"next\""]);
    let mut tokens = tokens();
    tokens.keys = both;
    let named = |key: &NewKey, id: Option<&str>| {
        let head = jsonwebtoken::Header {
            kid: id.map(str::to_owned),
            ..jsonwebtoken::Header::new(Algorithm::EdDSA)
        };
        let key = jsonwebtoken::EncodingKey::from_ed_pem(key.private.as_bytes()).unwrap();
        jsonwebtoken::encode(&head, &good(), &key).unwrap()
    };
    let verify = |key, id| tokens.verify(&named(key, id), NOW_S).map(|_| ());
    assert_eq!(verify(ed, Some("now")), Ok(()));
    assert_eq!(verify(&next, Some("next")), Ok(()));
    assert_eq!(verify(&next, None), Ok(()));
    assert_eq!(verify(&next, Some("now")), Err(TokenError::Signature));
    assert_eq!(verify(&next, Some("enc")), Err(TokenError::UnknownKey));
    assert_eq!(verify(&next, Some("gone")), Err(TokenError::UnknownKey));

    // A key that has no name is any, and if it is not the one, the name is of one that is not known.
    let unnamed = |key, id| {
        let mut tokens = self::tokens();
        tokens.keys = set_of(ed);
        tokens.verify(&named(key, id), NOW_S).map(|_| ())
    };
    assert_eq!(unnamed(ed, Some("gone")), Ok(()));
    assert_eq!(unnamed(&next, Some("gone")), Err(TokenError::UnknownKey));
    assert_eq!(unnamed(&next, None), Err(TokenError::Signature));
    // So is one of an algorithm that no key is for, as when keys of another kind replace all.
    let mut others = self::tokens();
    others.keys = set(json!([jwk(ed, json!({ "kid": "now" }))])).unwrap();
    let head = json!({ "alg": "ES256", "kid": "next" });
    let token = format!("{}.e30.AA", part(&head));
    assert_eq!(others.verify(&token, NOW_S), Err(TokenError::UnknownKey));
    let head = json!({ "alg": "ES256", "kid": "now" });
    let token = format!("{}.e30.AA", part(&head));
    assert_eq!(others.verify(&token, NOW_S), Err(TokenError::Algorithm));

    assert_eq!(set(json!([])).unwrap_err(), KeyError::None);
    let many = json!(vec![jwk(ed, json!({})); 65]);
    assert_eq!(set(many).unwrap_err(), KeyError::TooMany);
}

#[test]
fn keys_that_would_not_do_are_refused_when_they_are_read() {
    let parse = |text: &str| KeySet::parse(text).unwrap_err();
    let [ed, ec, rsa, secret] = &*KEYS;
    for key in [ed, ec, rsa] {
        assert_eq!(parse(&key.private), KeyError::Private { nth: 1 });
        let public = key.public.as_deref().unwrap();
        let both = format!("{public}{}", key.private);
        assert_eq!(parse(&both), KeyError::Private { nth: 2 });
        // Cut anywhere before its end.
        let end = public.rfind("-----END").unwrap();
        assert_eq!(parse(&public[..end]), KeyError::Unfit { nth: 1 });
        let two = format!("# one\n{public}\n# again\n{public}");
        assert_eq!(KeySet::parse(&two).unwrap().described().len(), 2);
    }
    // What everybody may have, in a form that is none of these, is no secret.
    let bare: String = ed
        .public
        .as_deref()
        .unwrap()
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    for text in [
        "",
        "a secret of more than thirty-two bytes",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ann@host",
        "---- BEGIN SSH2 PUBLIC KEY ----",
        "https://id.example/.well-known/jwks.json",
        "[{}]",
        &bare,
    ] {
        assert_eq!(parse(text), KeyError::Unknown, "{text}");
    }
    assert!(matches!(parse("{}"), KeyError::Json { .. }));
    assert!(matches!(
        parse(&secret.private.replace("keys", "key")),
        KeyError::Json { .. }
    ));
    assert_eq!(parse(&" ".repeat(1 << 20)), KeyError::TooLarge);
    let private = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": "AA", "d": "AA" }] });
    assert_eq!(parse(&private.to_string()), KeyError::Private { nth: 1 });
    let set = json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0" }] }).to_string();
    assert_eq!(parse(&set), KeyError::ShortSecret { bytes: 6 });
}
