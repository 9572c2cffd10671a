//! The document that describes `/v1` (`OpenAPI` 3.1), and the pages that show it.
//!
//! Each handler says of itself what it takes and gives (`#[utoipa::path]`), and is put into the router and into the
//! document by one call, so that there is none in one of them alone. What many have in common is described here:
//!
//! - [`parameters`], [`answers`], [`bodies`]: sets of them, which handlers name;
//! - [`problems`]: made from the table of codes;
//! - [`page`]: the reference as a page.

use axum::Router;
use utoipa::IntoResponses as _;
use utoipa::openapi::path::{Operation, Paths};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, LicenseBuilder, ObjectBuilder, OpenApi, OpenApiBuilder,
    PathItem, RefOr, Type,
};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

pub(in crate::http) mod answers;
pub(in crate::http) mod bodies;
mod page;
pub(in crate::http) mod parameters;
pub(in crate::http) mod problems;
mod served;

use super::authenticate;
use problems::Fails;
pub use served::Reference;

/// A version, as in a query: with any suffix that its tag may have.
const VERSION: &str = r"^[0-9a-fA-F]{64}(\.[0-9a-fA-F]{64})*(-.*)?$";
/// A version as a tag, with any suffix.
const ETAG: &str = r#"^"[0-9a-f]{64}(\.[0-9a-f]{64})*(-[a-z]+)*"$"#;

const EXAMPLE_ID: &str = "4NMNnkMhL8jXrdJ9jamS58PAVdXu";
const EXAMPLE_VERSION: &str = "9d3f0a1c5e7b2d4f6a8c0e1b3d5f7a9c2e4b6d8f0a1c3e5b7d9f2a4c6e8b0d1f";

/// Ways to say who asks.
const BEARER: &str = "token";
const BY_QUERY: &str = "tokenInQuery";

/// What comes before all else in the document, and on the page.
const INTRODUCTION: &str = "Documents as JSON, at the same server and beside the tabs that edit them live; what is \
written merges.

Every answer about a document has an `ETag`, its version. A write with an old `If-Match` is no conflict: it is carried \
out on the version that its author saw, and merged with what came since.

Errors are problem documents (RFC 9457) whose `code` stays as it is; nothing was changed then, but for 500 and 503 \
answers to a write, where that is not known.

`GET` means `HEAD`, too; `OPTIONS` is answered everywhere. JSON of 4 KiB and more comes in gzip where that is accepted, \
and bodies may be sent in gzip.";

fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// Adds handlers of places in documents: to the document as one path with a parameter for the place, and as one
/// without, for the whole document; to the router likewise, and so that a place may have any number of steps.
pub(super) fn at_places<S: Clone + Send + Sync + 'static>(
    mut router: OpenApiRouter<S>,
    (schemas, paths, methods): UtoipaMethodRouter<S>,
) -> OpenApiRouter<S> {
    let mut described = Paths::new();
    for (path, item) in paths.paths {
        let whole = path.trim_end_matches(&format!("/{{{}}}", parameters::PATH));
        for route in [whole, &format!("{whole}/"), &format!("{whole}/{{*path}}")] {
            router = router.route(route, methods.clone());
        }
        described
            .paths
            .insert(whole.to_owned(), of_whole(item.clone()));
        described.paths.insert(path, item);
    }
    let document = router.get_openapi_mut();
    document.paths.merge(described);
    let components = document.components.get_or_insert_default();
    components.schemas.extend(schemas);
    router
}

fn of_whole(mut item: PathItem) -> PathItem {
    // What is added may be anything.
    for operation in [&mut item.put, &mut item.patch].into_iter().flatten() {
        if let Some(RefOr::T(body)) = &mut operation.request_body {
            bodies::make_objects(body);
        }
    }
    for operation in operations(&mut item) {
        let id = operation.operation_id.take();
        operation.operation_id = id.map(|id| id + "OfDocument");
        let summary = operation.summary.take();
        operation.summary = summary.map(|summary| format!("{summary}: the whole document"));
        let all = operation.parameters.get_or_insert_default();
        all.retain(|parameter| !matches!(parameter, RefOr::T(one) if one.name == parameters::PATH));
    }
    item
}

/// The operations at an address.
fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem {
        get,
        put,
        post,
        patch,
        delete,
        ..
    } = item;
    let all = [get, put, post, patch, delete].into_iter();
    all.filter_map(Option::as_mut)
}

/// Likewise, to be shown.
fn named(item: &PathItem) -> impl Iterator<Item = (&'static str, &Operation)> {
    let all = [
        ("GET", &item.get),
        ("PUT", &item.put),
        ("POST", &item.post),
        ("PATCH", &item.patch),
        ("DELETE", &item.delete),
    ];
    let all = all.into_iter();
    all.filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

/// Joins what is described with the addresses of the description itself, and gives the router of both.
pub(super) fn around(documents: OpenApiRouter<Reference>) -> Router {
    let (router, document) = described(documents);
    router.with_state(Reference::of(&document))
}

fn described(mut documents: OpenApiRouter<Reference>) -> (Router<Reference>, OpenApi) {
    for item in documents.get_openapi_mut().paths.paths.values_mut() {
        for operation in operations(item) {
            // Pages of other sites may not write, nor act as whoever visits them.
            let mut refused = [Fails::<401>::responses(), Fails::<403>::responses()];
            let refused = refused.iter_mut().flat_map(std::mem::take);
            operation.responses.responses.extend(refused);
            let none: [&str; 0] = [];
            let by_header = SecurityRequirement::new(BEARER, none);
            let by_query = SecurityRequirement::new(BY_QUERY, none);
            // Where nobody has to say who they are.
            let without = SecurityRequirement::default();
            operation.security = Some(vec![by_header, by_query, without]);
        }
    }
    let all = documents.merge(served::routes());
    let (router, mut document) = all.split_for_parts();
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            let mut all = [
                Fails::<421>::responses(),
                Fails::<429>::responses(),
                Fails::<500>::responses(),
                Fails::<503>::responses(),
            ];
            operation
                .responses
                .responses
                .extend(all.iter_mut().flat_map(std::mem::take));
        }
    }
    let mut about = about();
    about.merge(document);
    (router, about)
}

/// What is said of it all, and what operations refer to.
fn about() -> OpenApi {
    let license = LicenseBuilder::new()
        .name("MIT OR Apache-2.0")
        .identifier(Some("MIT OR Apache-2.0"));
    let info = InfoBuilder::new()
        .title("Concord")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(INTRODUCTION))
        .license(Some(license.build()));
    let components = bodies::components(problems::components(ComponentsBuilder::new()));
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some(
            "A JSON Web Token. Where the server has `--auth none`, nobody has to bring one.",
        ));
    let by_query = ApiKeyValue::with_description(
        authenticate::PARAMETER,
        "The token, for clients that can't set headers: streams of events, and WebSockets.",
    );
    let components = components
        .security_scheme(BEARER, SecurityScheme::Http(bearer.build()))
        .security_scheme(BY_QUERY, SecurityScheme::ApiKey(ApiKey::Query(by_query)));
    let tags = [
        "Documents",
        "Values",
        "Events",
        "History",
        "Access",
        "Operation",
        "Reference",
    ];
    let tags = tags.map(|tag| TagBuilder::new().name(tag).build());
    OpenApiBuilder::new()
        .info(info)
        .tags(Some(tags))
        .components(Some(components.build()))
        .build()
}

/// The addresses that a router takes, as its debug output has them: axum tells them in no other way.
#[cfg(test)]
pub(super) fn routes<S>(router: &Router<S>) -> std::collections::BTreeSet<String> {
    let shown = format!("{router:?}");
    let texts = shown.split('"').skip(1).step_by(2);
    texts
        // What a router without a fallback answers by is not one of its addresses.
        .filter(|text| text.starts_with('/') && *text != "/" && !text.contains("axum_fallback"))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::http::problem::Code;
    use crate::http::{documents, refusals};

    #[test]
    fn every_address_of_the_router_is_described_and_no_other() {
        let (router, _) = documents::router().split_for_parts();
        let of_documents = routes(&router);
        let (router, _) = refusals::router().split_for_parts();
        let of_refusals = routes(&router);
        let (router, _) = served::routes().split_for_parts();
        let routed = of_documents.into_iter().chain(of_refusals);
        let routed: BTreeSet<String> = routed.chain(routes(&router)).collect();
        // A place has a parameter in the document, and any number of steps in the router.
        let routed = routed.iter().filter(|path| !path.ends_with('/'));
        let routed: BTreeSet<String> = routed
            .map(|path| path.replace("{*path}", "{path}"))
            .collect();
        assert!(routed.len() > 10, "{routed:?}");
        let document = document();
        let described: BTreeSet<String> = document.paths.paths.keys().cloned().collect();
        assert_eq!(described, routed);
    }

    #[test]
    fn every_code_is_described_under_its_status() {
        let document = serde_json::to_value(document()).expect("JSON");
        for code in Code::all() {
            let problem = format!("Problem{}", code.status().as_u16());
            let known = &document["components"]["responses"][&problem]["content"]["application/problem+json"]
                ["schema"]["allOf"][1]["properties"]["code"]["enum"];
            let known = known.as_array().expect("codes");
            assert!(known.contains(&code.as_str().into()), "{code:?}");
            assert!(!code.meaning().is_empty(), "{code:?}");
        }
    }

    fn document() -> OpenApi {
        // No handler is called.
        let (_, mut all) = documents::router().split_for_parts();
        all.merge(refusals::router().into_openapi());
        described(OpenApiRouter::with_openapi(all)).1
    }
}
