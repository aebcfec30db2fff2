"""Commands given by a program instead of a client: the same decisions, receipts and group commit.

A step has a key that is computed, never drawn, so that giving it again does nothing. Who gives
many steps can ask beforehand which of them are done (`Steps.receipts`).
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from uuid import UUID, uuid5

import structlog

from domain.aggregate import LedgerAggregate
from domain.values import NAMESPACE
from infra.commands import (
    Answer,
    Commands,
    KeyInFlight,
    Request,
    StillConflicting,
    StoreUnavailable,
)
from infra.eventstore.records import OutcomeUnknown, Receipt

T = TypeVar("T")

log = structlog.get_logger(__name__)

PAUSES: Final = (0.1, 0.3, 1.0, 3.0, 10.0, 20.0)
"""Seconds between the tries of a step that the log could not take."""


class LogUnreachable(Exception):
    """The log could not take a step for about half a minute."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command: `method` with `target` and `arguments`.

    `content` is what makes another request of the same key; JSON values only.
    """

    method: Callable[..., Any]
    target: UUID
    key: str
    content: object
    arguments: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None
    correlation_id: UUID | None = None
    causation_id: UUID | None = None
    """The event that gave rise to the step, where one did."""


def computed_id(*name: str | int) -> UUID:
    """The same for the same name, for ever."""
    return uuid5(NAMESPACE, json.dumps(name))


class Steps:
    """Carries out steps on one event loop, each once. `hash_key` is a secret."""

    def __init__(self, commands: Commands, hash_key: bytes) -> None:
        self._commands = commands
        self._hash_key = hash_key

    def hash(self, content: object) -> bytes:
        """Keyed, since contents may be guessable."""
        form = json.dumps(content, separators=(",", ":"), sort_keys=True).encode()
        return hmac.digest(self._hash_key, form, "sha256")

    async def receipts(self, actor: str, keys: Iterable[str]) -> dict[str, Receipt]:
        """What is known of commands done under these keys, by key. Errors: `LogUnreachable`."""
        return await self._tried(lambda: self._commands.receipts(actor, keys))

    async def stream(self, id_: UUID) -> list[LedgerAggregate.Event]:
        """What was recorded of one aggregate, in order. Errors: `LogUnreachable`."""
        return await self._tried(lambda: self._commands.stream(id_))

    async def do(self, step: Step, actor: str) -> Answer:
        """Does the step, unless it was done before, and waits until it is durable.

        Errors: `DomainError`, `KeyReused` and `LogUnreachable`. After the last one it may have
        been done all the same; doing it again tells.
        """
        request = Request(
            actor=actor,
            key=step.key,
            hash=self.hash(step.content),
            reason=step.reason,
            correlation_id=step.correlation_id,
            causation_id=step.causation_id,
        )

        def decide() -> Any:
            return step.method(step.target, **step.arguments)

        return await self._tried(
            lambda: self._commands.execute(decide, target=step.target, request=request)
        )

    async def _tried(self, act: Callable[[], Awaitable[T]]) -> T:
        for pause in PAUSES:
            try:
                return await act()
            except (StoreUnavailable, OutcomeUnknown, KeyInFlight, StillConflicting) as error:
                log.warning("step is tried again", error=type(error).__name__, after=pause)
            await asyncio.sleep(pause)
        try:
            return await act()
        except (StoreUnavailable, OutcomeUnknown, KeyInFlight, StillConflicting) as error:
            raise LogUnreachable(str(error) or type(error).__name__) from error
