//! Problems in the document: made from the table of codes, so that they can't differ from what is told.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use utoipa::openapi::{
    AllOfBuilder, ComponentsBuilder, ContentBuilder, HeaderBuilder, ObjectBuilder, Ref, RefOr,
    Response, ResponseBuilder, Schema, Type,
};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use super::string;
use crate::http::problem::{Body, Code};

/// One of [`Code`], as it is told.
pub(in crate::http) struct ProblemCode;

impl PartialSchema for ProblemCode {
    fn schema() -> RefOr<Schema> {
        codes(Code::all(), "Why a request was not carried out.")
    }
}

impl ToSchema for ProblemCode {}

fn codes(codes: impl Iterator<Item = Code>, description: &str) -> RefOr<Schema> {
    let codes = codes.map(Code::as_str);
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
        .enum_values(Some(codes))
        .into()
}

/// A problem with this status, as it is described once for all operations that have it.
pub(in crate::http) struct Fails<const STATUS: u16>;

impl<const STATUS: u16> IntoResponses for Fails<STATUS> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let name = Ref::from_response_name(name(STATUS));
        [(STATUS.to_string(), RefOr::Ref(name))].into()
    }
}

fn name(status: u16) -> String {
    format!("Problem{status}")
}

/// Adds problems, by status, to what operations refer to.
pub(super) fn components(mut components: ComponentsBuilder) -> ComponentsBuilder {
    components = components
        .schema(Body::name(), Body::schema())
        .schema(ProblemCode::name(), ProblemCode::schema());
    let statuses: std::collections::BTreeSet<_> = Code::all().map(Code::status).collect();
    statuses.into_iter().fold(components, |components, status| {
        components.response(name(status.as_u16()), problem(status))
    })
}

fn problem(status: StatusCode) -> Response {
    let of_status: Vec<Code> = Code::all().filter(|code| code.status() == status).collect();
    let known = ObjectBuilder::new()
        .property(
            "status",
            ObjectBuilder::new()
                .schema_type(Type::Integer)
                .enum_values(Some([status.as_u16()])),
        )
        .property(
            "code",
            codes(of_status.iter().copied(), "Those with this status."),
        );
    let schema = AllOfBuilder::new()
        .item(Ref::from_schema_name(Body::name()))
        .item(known);
    let listed = of_status
        .iter()
        .map(|code| format!("- `{}`: {}", code.as_str(), code.meaning()));
    let reason = status.canonical_reason().unwrap_or_default();
    let listed: Vec<String> = listed.collect();
    let description = format!("{reason}.\n\n{}", listed.join("\n"));
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let mut response = ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", content);
    for (name, description) in headers(status) {
        let header = HeaderBuilder::new().schema(Some(string()));
        let header = header.description(Some(*description)).build();
        response = response.header(*name, header);
    }
    response.build()
}

fn headers(status: StatusCode) -> &'static [(&'static str, &'static str)] {
    match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            &[("Retry-After", "After how many seconds to try again.")]
        }
        StatusCode::UNAUTHORIZED => &[("WWW-Authenticate", "How to say who asks.")],
        StatusCode::METHOD_NOT_ALLOWED => &[("Allow", "The methods that the address takes.")],
        StatusCode::UNSUPPORTED_MEDIA_TYPE => &[
            (
                "Accept-Encoding",
                "How a body may be compressed, where that was the reason.",
            ),
            (
                "Accept-Patch",
                "What patches may be, where that was the reason.",
            ),
        ],
        _ => &[],
    }
}
