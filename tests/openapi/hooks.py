"""What the document can't say of HTTP, and schemathesis can't know."""

import itertools
from base64 import b64decode
from urllib.parse import unquote

import schemathesis
from hypothesis import strategies
from schemathesis.core.failures import AcceptedNegativeData, MalformedJson
from schemathesis.openapi.checks import (
    EnsureResourceAvailability,
    MissingContentType,
    RejectedPositiveData,
    UseAfterFree,
)

AUTOMERGE = "application/vnd.automerge"

# A document's own bytes, as the server gave them; and those of the same one after one more change.
DOCUMENTS = [
    b64decode(
        "hW9Kg66hQhQAowEBEFk5S5fKKn/obdgTrqB+cHYBSXl42yxgjhLB489GCM74B+geTWyXx3ng+7TyfjyYwIkGAQIDAhMCIwdAAlYCDAEEAgYRBBMF"
        "FQwhAiMGNAJCBVYEVwOAAQJ/AH8BfwV/+oWTlaA0fwB/BwACAwAAAn8BAgMABH8AAAN+AAR9AWEEbGlzdAFiAAIFAHsBAn8CAQMCfgACAwECAAMU"
        "AQECBQAA"
    ),
    b64decode(
        "hW9Kg/ZAtk0A2AEBEFk5S5fKKn/obdgTrqB+cHYBcEYTas3Eh8rZjHzYBJtWt4EcXCHKjnSEkjUawzoMHPsHAQIDAhMDIwlAA0MCVgIOAQQCCBEI"
        "EwkVEiECIws0AkIGVgZXCIABB4EBAoMBAwIAAgF+BQd++oWTlaA00wN+AAF/AAIHAAMIAAADAgECAwQIAAZ/AAABAwAABXwABHwJAgF9AWEEbGlz"
        "dARuYW1lAgFiAAYLAHgBAgV6BX0BBAMBBQZ9AAIECAEDAAQUBBYBAgECQWNtZXwAAQABBwACAH4GAQE="
    ),
]
MAGIC = bytes.fromhex("856f4a83")

schemathesis.openapi.media_type(AUTOMERGE, strategies.sampled_from(DOCUMENTS))


@schemathesis.deserializer(AUTOMERGE)
def deserialize(_context, response):
    if not response.content.startswith(MAGIC):
        raise ValueError("this is no Automerge document")
    return response.content.decode("latin-1")


# What is made up of a version that never was, or of a key that was used for something else, gets no further than a refusal.
# So every second request that is to be good names the version that its document had last, and a new key.
VERSIONS = {}
KEYS = itertools.count()
# Where pages of the list of documents ended: nobody but the server can say that.
CURSORS = []

# The document that all examples are of.
EXAMPLE = "4NMNnkMhL8jXrdJ9jamS58PAVdXu"
TURN = itertools.cycle([True, False])
LIST = "GET /v1/documents"
DELETE = "DELETE /v1/documents/{id}"
UNDELETE = "DELETE /v1/documents/{id}/deletion"

# Documents whose deletion was taken back. It is a DELETE of the deletion, which schemathesis does not take for one that
# makes something: it would hold it against them that they are there.
UNDELETED = set()
# Requests that were good, and to which a version was written here. schemathesis looks at them again then, takes an id
# with its escapes for the id, and may find that too long: it would hold it against the server that it answers.
MENDED = set()


@schemathesis.hook
def after_call(_context, case, response):
    if case.operation.label == LIST and response.status_code == 200 and response.json()["next"]:
        CURSORS.append(response.json()["next"])
    if case.operation.label == DELETE and response.status_code < 300:
        UNDELETED.discard(case.path_parameters["id"])
    if case.operation.label == UNDELETE and response.status_code < 300:
        UNDELETED.add(case.path_parameters["id"])
    tag = response.headers.get("etag")
    if tag and "id" in (case.path_parameters or {}):
        VERSIONS[case.path_parameters["id"]] = tag[0].strip('"').split("-")[0]


@schemathesis.hook
def before_call(_context, case, _kwargs):
    # What is deleted stays so: the document of the examples would be there for no other request any more.
    if case.operation.label == DELETE and case.path_parameters.get("id") == EXAMPLE:
        case.path_parameters["id"] = f"deleted-{next(KEYS)}"
    if case.meta is None or case.meta.generation.mode.is_negative or not next(TURN):
        return
    if case.operation.label == LIST and "after" in (case.query or {}) and CURSORS:
        case.query["after"] = CURSORS[-1]
    if "Idempotency-Key" in (case.headers or {}):
        case.headers["Idempotency-Key"] = f'"{next(KEYS)}"'
    version = VERSIONS.get((case.path_parameters or {}).get("id"))
    if version is None:
        return
    MENDED.add(case.id)
    if "If-Match" in (case.headers or {}):
        case.headers["If-Match"] = f'"{version}"'
    for name in {"at", "from", "to", "since"} & set(case.query or {}):
        case.query[name] = version
    if "hash" in case.path_parameters:
        case.path_parameters["hash"] = version.split(".")[0]


# Whether a request is good may be a matter of what was asked before: which versions there are, which keys were used,
# what is at a place. As with 404 and 409, which schemathesis takes for such answers by itself.
BY_WHAT_IS_THERE = {"unknown-heads", "exists", "idempotency-key-reused"}


@schemathesis.hook
def filter_failure(_context, failure, case, response):
    if isinstance(failure, RejectedPositiveData):
        code = code_of(response)
        body = response.request.body or b""
        kind = response.request.headers.get("content-type")
        # A key deep in a value, where the schema says nothing. It is among the strings that are tried.
        is_forbidden_key = code == "bad-op" and b"__proto__" in body
        # A JSON Patch that makes something else of a document than an object.
        is_of_root = code == "not-an-object" and kind == "application/json-patch+json"
        # A list of roles has an owner, which no schema says; nor how long its names are.
        is_list = code == "bad-access-list"
        is_cursor = code == "bad-query" and case.operation.label == LIST and "after" in (case.query or {})
        return code not in BY_WHAT_IS_THERE and not (is_forbidden_key or is_of_root or is_list or is_cursor)
    if isinstance(failure, AcceptedNegativeData):
        return case.id not in MENDED and not has_id_by_bytes(case)
    if isinstance(failure, UseAfterFree):
        if (case.path_parameters or {}).get("id") in UNDELETED:
            return False
        # What became of a deleted document can be read, and a merge patch makes what is not there.
        return case.operation.label not in {"GET /v1/documents/{id}/deletion", "PATCH /v1/documents/{id}/value/{path}"}
    if isinstance(failure, EnsureResourceAvailability):
        # The document is there, and was not at the time that is asked for.
        return code_of(response) != "no-version"
    if isinstance(failure, (MissingContentType, MalformedJson)):
        # `Prefer: return=minimal`: OpenAPI can't say that an answer has a body or none.
        is_minimal = response.headers.get("preference-applied") == ["return=minimal"]
        return not (is_minimal and response.status_code == 201 and response.content == b"")
    return True


def has_id_by_bytes(case):
    """An id of more letters than it may surely have, some of them of several bytes, that has bytes enough: the pattern can
    count only letters."""
    ids = [(case.path_parameters or {}).get("id"), (case.query or {}).get("document")]
    ids = [unquote(id) for id in ids if isinstance(id, str)]
    return any(not id.isascii() and len(id) > 16 and len(id.encode(errors="surrogatepass")) <= 64 for id in ids)


def code_of(response):
    if response.headers.get("content-type") != ["application/problem+json"]:
        return None
    return response.json().get("code")
