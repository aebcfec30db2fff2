"""The table of commands, and the one way in which each is carried out.

A route, a line of `/v1/bulk` and a line of an import are the same thing: a path, a key, a body and
whoever sent it. `Dispatcher.dispatch` takes all of them.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from msgspec import Struct

from api.body import canonical, validate
from api.errors import (
    Forbidden,
    IdempotencyKeyMissing,
    InvalidRequest,
    MalformedHeader,
    ResourceNotFound,
)
from api.schemas.fields import CommandBody
from api.tokens import Principal, Scope
from domain.values import stream_id
from infra.commands import Answer, Commands, Request
from infra.ids import new_id

MAX_KEY_LENGTH = 255
MAX_PATH_LENGTH = 200
ID = "{id}"


@dataclass(frozen=True, slots=True)
class Command:
    """A row of the table: what is sent where becomes which method of the application.

    `creates`: the kind of thing whose stream it begins; its id is drawn, or computed from the
    body's `external_id`. `names`: the kind of thing whose stream the body's `external_id` names,
    whether it has begun or not. `part`: the argument that takes a new id, which the answer holds.
    `approver`: the argument that takes the actor where the token may approve, None where not.
    `keyed`: the argument that takes the idempotency key where the body has nothing there.
    """

    path: str
    body: type[CommandBody]
    method: Callable[..., Any]
    summary: str
    creates: str | None = None
    names: str | None = None
    part: str | None = None
    approver: str | None = None
    keyed: str | None = None
    scope: Scope = Scope.COMMAND

    @property
    def status(self) -> int:
        return 200 if self.creates is None and self.part is None else 201

    @property
    def resource(self) -> str:
        return self.path.split("/")[2]


class Target(Struct, frozen=True):
    """A command and the id in its path, if it has one."""

    command: Command
    id: UUID | None


class Origin(Struct, frozen=True):
    """What a command belongs to, besides who sends it. Takes no part in recognising a repetition.

    `correlation_id`: the conversation; without it one of its own. `causation_id`: what gave rise to
    it. `traceparent`: the trace that its events carry on; without it the present one, if any.
    """

    correlation_id: UUID | None = None
    causation_id: UUID | None = None
    traceparent: str | None = None


NO_ORIGIN = Origin()


class Work(Struct, frozen=True):
    """A command that was checked as far as its own fields go, ready to be decided."""

    target: Target
    body: CommandBody
    key: str
    form: bytes
    if_match: int | None
    principal: Principal
    origin: Origin = NO_ORIGIN

    def named(self) -> set[UUID]:
        """The streams that the request speaks of."""
        found = {value for value in self.body.__dict__.values() if isinstance(value, UUID)}
        stream = self.stream()
        return found if stream is None else found | {stream}

    def stream(self) -> UUID | None:
        """The stream it writes; None where that is a new one whose id is drawn."""
        if self.target.id is not None:
            return self.target.id
        kind = self.target.command.creates or self.target.command.names
        external = getattr(self.body, "external_id", None)
        if external is None or kind is None:
            return None
        return stream_id(kind, external)


class Dispatcher:
    """Carries out commands by their paths."""

    def __init__(self, commands: Commands, table: Iterable[Command], hash_key: bytes) -> None:
        self._commands = commands
        self._hash = hmac.new(hash_key, digestmod=hashlib.sha256)
        self._table: Mapping[tuple[str, ...], Command] = {
            tuple(command.path.split("/")): command for command in table
        }

    async def dispatch(
        self,
        path: str,
        key: str,
        body: Any,
        principal: Principal,
        origin: Origin = NO_ORIGIN,
    ) -> Answer:
        """Carries out what would be sent to `path`. `body` is a JSON value.

        Raises DomainError, ApiError and the errors of the write path.
        """
        return await self.execute(self.prepare(path, key, body, principal, origin))

    def prepare(
        self,
        path: str,
        key: str,
        body: Any,
        principal: Principal,
        origin: Origin = NO_ORIGIN,
    ) -> Work:
        """Checks everything that can be checked without the store. Raises ApiError."""
        target = self.find(path)
        authorize(principal, target.command.scope)
        check_key(key)
        form = canonical(body)
        checked = validate(target.command.body, form)
        return Work(target, checked, key, form, None, principal, origin)

    def find(self, path: str) -> Target:
        """The command behind a path. Raises ResourceNotFound, InvalidRequest for a bad id."""
        if len(path) <= MAX_PATH_LENGTH:
            parts = path.split("/")
            command = self._table.get(tuple(parts))
            if command is not None and ID not in parts:
                return Target(command, None)
            if len(parts) > 3:
                command = self._table.get((*parts[:3], ID, *parts[4:]))
                if command is not None:
                    return Target(command, parse_id(parts[3]))
        raise ResourceNotFound("No command has this path.")

    async def execute(self, work: Work) -> Answer:
        """Decides and waits until it is durable. Raises DomainError and the write path's errors."""
        command, principal, origin = work.target.command, work.principal, work.origin
        arguments = work.body.arguments()
        target = work.stream() or new_id()
        extra: dict[str, Any] | None = None
        if command.part is not None:
            part = new_id()
            arguments[command.part] = part
            extra = {command.part: str(part)}
        if command.approver is not None:
            arguments[command.approver] = (
                principal.subject if Scope.APPROVE in principal.scopes else None
            )
        if command.keyed is not None and arguments.get(command.keyed) is None:
            arguments[command.keyed] = work.key
        return await self._commands.execute(
            partial(command.method, self._commands.crm, target, **arguments),
            target=target,
            request=Request(
                actor=principal.subject,
                key=work.key,
                hash=self._request_hash(work),
                if_match=work.if_match,
                reason=work.body.reason,
                correlation_id=origin.correlation_id,
                causation_id=origin.causation_id,
                traceparent=origin.traceparent,
            ),
            status=command.status,
            extra=extra,
        )

    def _request_hash(self, work: Work) -> bytes:
        """Of method, path, body and If-Match: keyed, since bodies may be guessable."""
        subject = work.target.id.hex if work.target.id is not None else ""
        version = "" if work.if_match is None else str(work.if_match)
        keyed = self._hash.copy()  # `hmac.digest` would release the interpreter lock each time
        keyed.update(f"POST {work.target.command.path} {subject} {version}\n".encode())
        keyed.update(work.form)
        return keyed.digest()


def authorize(principal: Principal, scope: Scope) -> None:
    """Raises Forbidden."""
    if scope not in principal.scopes:
        raise Forbidden(scope)


def check_key(key: str | None) -> str:
    """A usable idempotency key: 1 to 255 printable ASCII characters. Raises ApiError."""
    if not key:
        raise IdempotencyKeyMissing
    if len(key) > MAX_KEY_LENGTH or not key.isascii() or not key.isprintable():
        raise MalformedHeader("The Idempotency-Key has 1 to 255 printable ASCII characters.")
    return key


def parse_id(text: str) -> UUID:
    """A UUID in its usual form. Raises InvalidRequest."""
    try:
        if len(text) != 36:
            raise ValueError
        return UUID(text)
    except ValueError:
        raise InvalidRequest.of_parameter("id", "is not a UUID") from None
