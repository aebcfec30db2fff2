"""Errors as RFC 9457 problems. One table says which error has which status; nothing else does.

`type` is `urn:crm-ledger:problem:` and a slug that stays: one for each rule of the domain, one for
each way in which a request can be wrong. Details never hold more of the request than a short value.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from domain.errors import AlreadyExists, DomainError, Invalid, NeedsApproval, NotFound, Refused
from infra import commands as write_path
from infra.eventstore.records import OutcomeUnknown
from infra.proof.proofs import NoSuchCheckpoint, NotSealed, ProofUnavailable
from infra.vault import WrongMasterKey

PROBLEM = "urn:crm-ledger:problem:"
PROBLEM_JSON = "application/problem+json"
LISTED_ERRORS = 20
SHOWN = 300
RETRY_AFTER = {"Retry-After": "1"}

log = structlog.get_logger("api")


@dataclass(frozen=True, slots=True)
class Problem:
    """What a client is told."""

    status: int
    slug: str
    title: str
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, Any] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        return {
            "type": PROBLEM + self.slug,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **self.members,
        }

    def response(self) -> Response:
        return Response(
            orjson.dumps(self.content()),
            self.status,
            headers=dict(self.headers),
            media_type=PROBLEM_JSON,
        )


class ApiError(Exception):
    """A request that is wrong before any rule of the domain is asked."""

    status = 400
    type = "bad-request"
    title = "The request is malformed"

    def __init__(
        self,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers or {}
        self.members = members or {}


class MalformedBody(ApiError):
    type = "malformed-body"
    title = "The body is not JSON"


class MalformedHeader(ApiError):
    type = "malformed-header"
    title = "A header is malformed"


class IdempotencyKeyMissing(ApiError):
    type = "idempotency-key-missing"
    title = "A command needs an Idempotency-Key"

    def __init__(self) -> None:
        super().__init__("Send one Idempotency-Key header; repeat it only to repeat the command.")


class InvalidCursor(ApiError):
    type = "invalid-cursor"
    title = "The cursor is not one of this list"

    def __init__(self) -> None:
        super().__init__("Follow the `next` link of an answer, with the same filters and sort.")


class Unauthorized(ApiError):
    status = 401
    type = "unauthorized"
    title = "A valid bearer token is needed"

    def __init__(self) -> None:
        super().__init__(
            "Send `Authorization: Bearer …` with a token of this installation.",
            headers={"WWW-Authenticate": 'Bearer realm="crm-ledger"'},
        )


class Forbidden(ApiError):
    status = 403
    type = "forbidden"
    title = "The token does not allow this"

    def __init__(self, scope: str) -> None:
        super().__init__(
            f"The token lacks the scope `{scope}`.",
            headers={
                "WWW-Authenticate": 'Bearer realm="crm-ledger", error="insufficient_scope", '
                f'scope="{scope}"'
            },
        )


class ResourceNotFound(ApiError):
    status = 404
    type = "not-found"
    title = "There is no such thing"


class BodyTooLarge(ApiError):
    status = 413
    type = "body-too-large"
    title = "The body is too large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"At most {limit} bytes are taken.")


class UnsupportedMediaType(ApiError):
    status = 415
    type = "unsupported-media-type"
    title = "The body's content type is not supported"

    def __init__(self, accepted: str) -> None:
        super().__init__(f"Send {accepted}, in UTF-8 and not compressed.")


class InvalidRequest(ApiError):
    """Fields that are wrong, one entry each."""

    status = 422
    type = "invalid-request"
    title = "A value is wrong"

    def __init__(self, errors: Sequence[Mapping[str, str]]) -> None:
        shown = list(errors[:LISTED_ERRORS])
        super().__init__(
            "; ".join(f"{error['in']}: {error['detail']}" for error in shown)[:SHOWN],
            members={"errors": shown},
        )

    @classmethod
    def of(cls, error: ValidationError) -> "InvalidRequest":
        """From the validation of a body: `in` is a JSON pointer."""
        found = error.errors(include_url=False, include_context=False, include_input=False)
        return cls(_entries(found, lambda where: "#/" + "/".join(map(_escaped, where))))

    @classmethod
    def of_parameter(cls, name: str, detail: str) -> "InvalidRequest":
        return cls([{"in": name, "code": "value_error", "detail": detail}])


class NotYetRead(ApiError):
    status = 503
    type = "position-not-reached"
    title = "The read model does not reflect that position yet"

    def __init__(self, wanted: int, reached: int) -> None:
        super().__init__(
            f"Position {wanted} was asked for, {reached} is reflected. Ask again.",
            headers=RETRY_AFTER,
            members={"position": reached},
        )


class Parked(ApiError):
    status = 503
    type = "parked"
    title = "An event about this could not be projected"

    def __init__(self) -> None:
        super().__init__(
            "The read model holds back what came after it until it is mended.",
            headers={"Retry-After": "60"},
        )


class NotOfThisLog(ApiError):
    status = 503
    type = "read-model-of-another-log"
    title = "The read model is not one of the present log"

    def __init__(self) -> None:
        super().__init__(
            "It was filled from another log, or from this one before it was restored to an"
            " earlier point. Whoever runs the service is told how to go on.",
            headers={"Retry-After": "60"},
        )


class RangeReversed(ApiError):
    status = 422
    type = "range-reversed"
    title = "The range ends before it begins"

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"`from` is {first} and `to` is {second}: a log does not shrink.")


class Unavailable(ApiError):
    status = 503
    type = "unavailable"
    title = "The service cannot answer now"

    def __init__(self, detail: str = "Ask again.") -> None:
        super().__init__(detail, headers=RETRY_AFTER)


class ClientGone(Exception):
    """The client went away before its request was complete; there is nobody to answer."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How a family of errors is told."""

    status: int
    title: str
    slug: str | None = None  # None: the error's own `type`
    headers: Mapping[str, str] = field(default_factory=dict)


RULES: Mapping[type[Exception], Rule] = {
    Invalid: Rule(422, "A value is wrong"),
    NotFound: Rule(404, "There is no such thing"),
    NeedsApproval: Rule(403, "An approver is needed"),
    Refused: Rule(409, "A rule forbids it in the present state"),
    write_path.StaleVersion: Rule(412, "The version is not the current one", "stale-version"),
    write_path.KeyReused: Rule(422, "The key belongs to another request", "key-reused"),
    write_path.KeyInFlight: Rule(
        409, "The first request with this key still runs", "key-in-flight", RETRY_AFTER
    ),
    write_path.StillConflicting: Rule(
        409, "Others keep changing the same thing", "still-conflicting", RETRY_AFTER
    ),
    OutcomeUnknown: Rule(
        503,
        "Whether it was done is unknown: repeat it with the same key",
        "outcome-unknown",
        RETRY_AFTER,
    ),
    write_path.StoreUnavailable: Rule(
        503, "The store cannot be reached", "store-unavailable", RETRY_AFTER
    ),
    WrongMasterKey: Rule(
        503,
        "Personal data cannot be opened here",
        "wrong-master-key",
        {"Retry-After": "60"},
    ),
    NotSealed: Rule(404, "The log is not sealed as far as that", "not-sealed"),
    NoSuchCheckpoint: Rule(404, "No checkpoint was signed at that size", "no-such-checkpoint"),
    ProofUnavailable: Rule(
        503, "The log cannot be proven now", "proof-unavailable", {"Retry-After": "60"}
    ),
}
"""Looked up along an error's ancestors: the nearest counts."""

INTERNAL = Problem(500, "internal-error", "Something went wrong here", "It has been logged.")
_TITLES = {404: "There is no such thing", 405: "The method is not allowed here"}
_SLUGS = {404: "not-found", 405: "method-not-allowed"}


def problem_of(error: Exception) -> Problem:
    """What a client is told about an error. Unknown ones are logged, and told as 500."""
    if isinstance(error, ApiError):
        return Problem(
            error.status, error.type, error.title, error.detail, error.headers, error.members
        )
    for ancestor in type(error).__mro__:
        rule = RULES.get(ancestor)
        if rule is not None:
            if isinstance(error, WrongMasterKey):
                log.error("wrong master key; see crm doctor")
            elif isinstance(error, ProofUnavailable):
                log.error("the stored tree is damaged; see crm verify", reason=str(error))
            return _told(error, rule)
    log.error("unexpected error", exc_info=error)
    return INTERNAL


def _told(error: Exception, rule: Rule) -> Problem:
    members: dict[str, Any] = {}
    if isinstance(error, AlreadyExists):
        members["existing_id"] = str(error.existing_id)
    slug = rule.slug or (error.type if isinstance(error, DomainError) else "error")
    return Problem(
        rule.status, slug, rule.title, str(error)[:SHOWN] or rule.title, rule.headers, members
    )


def add_handlers(app: FastAPI) -> None:
    """Every error that reaches the application becomes a problem."""

    async def handle(request: Request, error: Exception) -> Response:
        return problem_of(error).response()

    async def handle_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - what it is registered for
        entries = _entries(error.errors(), lambda where: ".".join(map(str, where[1:])))
        return problem_of(InvalidRequest(entries)).response()

    async def handle_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(sorted(_methods(app, request)))
        return Problem(
            error.status_code,
            _SLUGS.get(error.status_code, "bad-request"),
            _TITLES.get(error.status_code, "The request cannot be answered"),
            str(error.detail)[:SHOWN],
            headers,
        ).response()

    families: tuple[type[Exception], ...] = (ApiError, *RULES, Exception)
    for family in families:
        app.add_exception_handler(family, handle)
    app.add_exception_handler(RequestValidationError, handle_validation)
    app.add_exception_handler(HTTPException, handle_http)


def _methods(app: FastAPI, request: Request) -> set[str]:
    found: set[str] = set()
    for route in app.routes:
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            found |= set(getattr(route, "methods", None) or ())
    return found


def _entries(errors: Iterable[Any], pointer: Any) -> list[dict[str, str]]:
    return [
        {
            "in": pointer(error["loc"])[:SHOWN],
            "code": str(error["type"])[:SHOWN],
            "detail": str(error["msg"]).removeprefix("Value error, ")[:SHOWN],
        }
        for error in errors
    ]


def _escaped(part: object) -> str:
    return str(part)[:100].replace("~", "~0").replace("/", "~1")
