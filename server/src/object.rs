//! Structs that are read from JSON objects and from nothing else: serde takes an array of their members' values for one,
//! too, and what somebody else sent would mean something that is written nowhere.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// What an object says by its members.
#[derive(Debug)]
pub(crate) struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let members = deserializer.deserialize_map(Members(PhantomData));
        members.map(Self)
    }
}

struct Members<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct One {
        role: String,
        more: Option<u32>,
    }

    #[test]
    fn an_object_is_read_and_an_array_of_its_members_is_not() {
        let read = |text: &str| serde_json::from_str::<Object<One>>(text).map(|one| one.0);
        let (role, more) = ("owner".to_owned(), Some(1));
        let one = read(r#" {"role": "owner", "more": 1} "#).unwrap();
        assert_eq!(one, One { role, more });
        for bad in [
            r#"["owner", 1]"#,
            r#"{"role": "owner", "role": "owner"}"#,
            r#"{"role": "owner", "other": 1}"#,
            r#"{"role": "owner"} {}"#,
            r#""owner""#,
            "null",
            "",
        ] {
            assert!(read(bad).is_err(), "{bad}");
            if let Ok(json) = serde_json::from_str::<serde_json::Value>(bad)
                && !json.is_object()
            {
                assert!(Object::<One>::deserialize(&json).is_err(), "{bad}");
            }
        }
    }
}
