//! The reference as a page: the document, laid out to be read. Nothing on it comes from elsewhere, and nothing runs.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::{Content, OpenApi, RefOr, Response, Schema};

use super::named;

const STYLE: &str = include_str!("page.css");

/// Nothing but the page's own style.
pub(super) fn content_security_policy() -> String {
    let style = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// The page.
pub(super) fn page(document: &OpenApi) -> Markup {
    let title = format!("{} {}", document.info.title, document.info.version);
    let tags = by_tag(document);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · HTTP reference" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                nav aria-label="Operations" {
                    p.name { a href="#top" { (title) } }
                    @for (tag, operations) in &tags {
                        h2 { (tag) }
                        ul {
                            @for one in operations {
                                li { a href={ "#" (one.id()) } { (one.method()) " " (one.path_in_nav()) } }
                            }
                        }
                    }
                    h2 { "More" }
                    ul {
                        li { a href="#problems" { "Problems" } }
                        li { a href="#schemas" { "Schemas" } }
                    }
                }
                main #top {
                    h1 { (document.info.title) " over HTTP" }
                    (text(document.info.description.as_deref().unwrap_or_default()))
                    p { "For programs: " a href="openapi.json" { "openapi.json" } " (OpenAPI 3.1)." }
                    @for (tag, operations) in &tags {
                        h2 { (tag) }
                        @for one in operations { (one.section(document)) }
                    }
                    (problems(document))
                    (schemas(document))
                }
            }
        }
    }
}

/// An operation, and where it is.
struct One<'a> {
    path: &'a str,
    method: &'static str,
    operation: &'a Operation,
}

/// In the order in which the document has its tags.
fn by_tag(document: &OpenApi) -> Vec<(&str, Vec<One<'_>>)> {
    let tags = document.tags.iter().flatten();
    let mut tags: Vec<(&str, Vec<One<'_>>)> =
        tags.map(|tag| (tag.name.as_str(), Vec::new())).collect();
    for (path, item) in &document.paths.paths {
        for (method, operation) in named(item) {
            let one = One {
                path,
                method,
                operation,
            };
            let tag = operation.tags.iter().flatten().next();
            let tag = tag.map_or("", String::as_str);
            match tags.iter_mut().find(|(known, _)| *known == tag) {
                Some((_, operations)) => operations.push(one),
                None => tags.push((tag, vec![one])),
            }
        }
    }
    tags
}

impl One<'_> {
    fn id(&self) -> &str {
        self.operation.operation_id.as_deref().unwrap_or_default()
    }

    fn method(&self) -> Markup {
        html! { span class={ "method " (self.method.to_ascii_lowercase()) } { (self.method) } }
    }

    /// What all have in common is left out where there is little room.
    fn path_in_nav(&self) -> &str {
        self.path.strip_prefix("/v1/documents/{id}").map_or_else(
            || self.path.trim_start_matches("/v1"),
            |rest| {
                if rest.is_empty() {
                    "/documents/{id}"
                } else {
                    rest
                }
            },
        )
    }

    fn section(&self, document: &OpenApi) -> Markup {
        let Operation {
            summary,
            description,
            parameters,
            request_body,
            responses,
            ..
        } = self.operation;
        let parameters: Vec<&Parameter> = parameters.iter().flatten().filter_map(plain).collect();
        html! {
            section id=(self.id()) {
                h3 { (summary.as_deref().unwrap_or_default()) }
                p.address { (self.method()) " " code { (breakable(self.path)) } }
                @if let Some(description) = description { (text(description)) }
                @if !parameters.is_empty() {
                    h4 { "Parameters" }
                    dl {
                        @for parameter in parameters { (described(parameter)) }
                    }
                }
                @if let Some(body) = request_body.as_ref().and_then(plain) {
                    h4 { "Body" }
                    @for (kind, content) in &body.content { (shown(kind, content)) }
                }
                h4 { "Answers" }
                dl {
                    @for (status, response) in &responses.responses {
                        @if let Some(response) = plain(response) { (answered(status, response)) }
                    }
                }
                p.problems {
                    @for (status, response) in &responses.responses {
                        @if let RefOr::Ref(problem) = response {
                            @let name = last(&problem.ref_location);
                            a href={ "#" (name) } { code { (status) } " " (title_of(document, name)) }
                            " "
                        }
                    }
                }
            }
        }
    }
}

fn described(parameter: &Parameter) -> Markup {
    let place = match parameter.parameter_in {
        ParameterIn::Path => "in the path",
        ParameterIn::Query | ParameterIn::QueryString => "in the query",
        ParameterIn::Header => "header",
        ParameterIn::Cookie => "cookie",
    };
    let schema = parameter
        .schema
        .as_ref()
        .and_then(|schema| serde_json::to_value(schema).ok());
    html! {
        dt { code { (parameter.name) } " " span.kind { (place) } }
        dd {
            (text(parameter.description.as_deref().unwrap_or_default()))
            @if let Some(schema) = schema.as_ref().and_then(bounds) { p.kind { (schema) } }
        }
    }
}

/// What a schema allows, in words.
fn bounds(schema: &Json) -> Option<String> {
    let mut said = Vec::new();
    if let Some(Json::Array(values)) = schema.get("enum") {
        let values: Vec<_> = values.iter().filter_map(Json::as_str).collect();
        said.push(values.join(" or "));
    }
    for (name, word) in [
        ("minimum", "at least"),
        ("maximum", "at most"),
        ("default", "otherwise"),
    ] {
        if let Some(value) = schema.get(name) {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            said.push(format!("{word} {value}"));
        }
    }
    (!said.is_empty()).then(|| said.join(", "))
}

fn shown(kind: &str, content: &RefOr<Content>) -> Markup {
    let Some(content) = plain(content) else {
        return html! {};
    };
    html! {
        p { code { (kind) } @if let Some(name) = content.schema.as_ref().and_then(name_of) { ": " a href={ "#schema-" (name) } { (name) } } }
        @if let Some(example) = &content.example { pre { code { (pretty(example)) } } }
    }
}

fn answered(status: &str, response: &Response) -> Markup {
    let headers: Vec<&str> = response.headers.keys().map(String::as_str).collect();
    html! {
        dt { code.status { (status) } }
        dd {
            (text(&response.description))
            @if !headers.is_empty() { p.kind { "With " (headers.join(", ")) "." } }
            @for (kind, content) in &response.content { (shown(kind, content)) }
        }
    }
}

fn title_of<'a>(document: &'a OpenApi, name: &str) -> &'a str {
    let components = document.components.as_ref();
    let found = components.and_then(|components| components.responses.get(name));
    found.and_then(plain).map_or("", title)
}

/// The title of a problem, which comes before the codes in its description.
fn title(response: &Response) -> &str {
    let title = response.description.lines().next();
    title.unwrap_or_default().trim_end_matches('.')
}

fn problems(document: &OpenApi) -> Markup {
    let components = document.components.iter();
    let all = components.flat_map(|components| &components.responses);
    html! {
        h2 #problems { "Problems" }
        @for (name, response) in all {
            @if let Some(response) = plain(response) {
                section id=(name) {
                    h3 { (name.trim_start_matches("Problem")) " " (title(response)) }
                    dl.codes {
                        @for (code, meaning) in response.description.lines().filter_map(|line| line.strip_prefix("- ")?.split_once(": ")) {
                            dt { (inline(code)) }
                            dd { (inline(meaning)) }
                        }
                    }
                }
            }
        }
    }
}

fn schemas(document: &OpenApi) -> Markup {
    let components = document.components.iter();
    let all = components.flat_map(|components| &components.schemas);
    html! {
        h2 #schemas { "Schemas" }
        @for (name, schema) in all {
            section id={ "schema-" (name) } {
                details {
                    summary { (name) }
                    pre { code { (serde_json::to_string_pretty(schema).unwrap_or_default()) } }
                }
            }
        }
    }
}

/// Paragraphs, in which what stands between backticks is code.
fn text(text: &str) -> Markup {
    html! { @for paragraph in text.split("\n\n") { p { (inline(paragraph)) } } }
}

fn inline(text: &str) -> Markup {
    html! {
        @for (n, part) in text.split('`').enumerate() {
            @if n % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// Where a long address may be broken.
fn breakable(path: &str) -> Markup {
    html! { @for part in path.split_inclusive('/') { (part) wbr; } }
}

/// An example: a text as it is, all else as JSON.
fn pretty(example: &Json) -> String {
    match example {
        Json::String(text) if text.contains('\n') => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    }
}

fn plain<T>(one: &RefOr<T>) -> Option<&T> {
    match one {
        RefOr::T(one) => Some(one),
        RefOr::Ref(_) => None,
    }
}

fn name_of(schema: &RefOr<Schema>) -> Option<&str> {
    match schema {
        RefOr::Ref(named) => Some(last(&named.ref_location)),
        RefOr::T(_) => None,
    }
}

fn last(location: &str) -> &str {
    location.rsplit('/').next().unwrap_or_default()
}
