"""Parameters of the audit's reads, and the shapes of their answers."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from api.schemas.parameters import LARGEST_POSITION, Instant, KnownAt
from infra.contract.bodies import event_classes, topic_of
from infra.history.reading import Wanted

TOPICS = frozenset(topic_of(cls) for cls in event_classes())
MAX_VERSION = 2**31 - 1

Position = Annotated[int, Field(ge=0, le=LARGEST_POSITION)]
Version = Annotated[int, Field(ge=0, le=MAX_VERSION)]


class _Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class EventsParameters(_Parameters):
    """Which part of the log."""

    after: Annotated[
        Position, Field(description="Go on after this position: `next_after` of a last line.")
    ] = 0
    to: Annotated[Position | None, Field(description="Up to this position.")] = None
    since: Annotated[Instant | None, Field(alias="from", description="Recorded then or later.")] = (
        None
    )
    until: Annotated[Instant | None, Field(description="Recorded before then.")] = None
    type: Annotated[
        list[str],
        Field(max_length=100, description="A kind of event; may be given several times."),
    ] = []
    actor: Annotated[str | None, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")] = None
    correlation_id: UUID | None = None
    command_id: UUID | None = None
    causation_id: UUID | None = None
    stream_id: UUID | None = None
    limit: Annotated[
        int | None, Field(ge=1, le=LARGEST_POSITION, description="So many events at most.")
    ] = None

    @field_validator("type")
    @classmethod
    def _known(cls, types: list[str]) -> list[str]:
        for one in types:
            if one not in TOPICS:
                raise ValueError(f"there is no event of the type {one[:100]}")
        return types

    @model_validator(mode="after")
    def _forward(self) -> "EventsParameters":
        if self.to is not None and self.to < self.after:
            raise ValueError("to lies before after")
        if self.since is not None and self.until is not None and self.until < self.since:
            raise ValueError("until lies before from")
        return self

    def wanted(self) -> Wanted:
        return Wanted(
            tuple(dict.fromkeys(self.type)),
            self.actor,
            self.command_id,
            self.correlation_id,
            self.causation_id,
            self.stream_id,
        )


class StreamParameters(_Parameters):
    after: Annotated[Version, Field(description="Go on after this version: `next`.")] = 0
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class StateParameters(_Parameters):
    """By default after the last event."""

    version: Annotated[
        int | None,
        Field(ge=1, le=MAX_VERSION, description="After this event, in the order of recording."),
    ] = None
    as_of: Annotated[
        Instant | None, Field(description="Of what was true then, in the order of time.")
    ] = None
    known_at: Annotated[
        KnownAt | None, Field(description="As known then: a position of the log, or a time.")
    ] = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "StateParameters":
        if self.version is not None and (self.as_of is not None or self.known_at is not None):
            raise ValueError("version goes neither with as_of nor with known_at")
        return self


class DifferenceParameters(_Parameters):
    """Two versions, 0 being before the first event, or two times."""

    earlier: Annotated[KnownAt, Field(alias="from", description="A version, or a time.")]
    later: Annotated[KnownAt, Field(alias="to", description="A version, or a time.")]
    known_at: Annotated[
        KnownAt | None,
        Field(description="With times: as known then, a position of the log, or a time."),
    ] = None

    @model_validator(mode="after")
    def _of_one_kind(self) -> "DifferenceParameters":
        versions = [isinstance(one, int) for one in (self.earlier, self.later)]
        if versions[0] != versions[1]:
            raise ValueError("from and to are two versions or two times")
        if versions[0] and self.known_at is not None:
            raise ValueError("known_at goes with times only")
        if versions[0] and self.later > MAX_VERSION:  # type: ignore[operator]
            raise ValueError("to is no version")
        if self.later < self.earlier:  # type: ignore[operator]
            raise ValueError("to lies before from")
        return self


class Stream(BaseModel):
    kind: Annotated[str, Field(examples=["opportunity"])]
    id: UUID


class Cause(BaseModel):
    """What the event itself tells of its cause."""

    id: Annotated[UUID, Field(description="Of the event, command or message: `causation_id`.")]
    stream_id: Annotated[UUID | None, Field(description="Where the cause is of this stream.")] = (
        None
    )
    version: int | None = None
    policy: Annotated[str | None, Field(description="The rule that acted.")] = None


class AuditEvent(BaseModel):
    """An event. Personal text is `[personal]` without the scope `personal`, `[erased]` where its
    key is destroyed."""

    position: int
    stream: Stream
    version: int
    event_id: UUID
    type: str
    class_version: Annotated[int, Field(description="The layout in which it was written.")]
    data: Annotated[
        dict[str, Any] | None,
        Field(description="In the present layout; null where it cannot be read."),
    ]
    actor: str
    reason: str | None
    occurred_at: str
    recorded_at: str
    partition_key: UUID
    command_id: UUID
    correlation_id: UUID
    causation_id: UUID | None
    caused_by: Cause | None
    traceparent: str | None = None
    state_base64: Annotated[
        str | None, Field(description="As it is stored, where it cannot be read.")
    ] = None
    error: str | None = None


class AuditEnd(BaseModel):
    """The last line. Without it the answer broke off: go on after the last line that came."""

    next_after: Annotated[int, Field(description="Go on from here with `after`.")]
    end: Annotated[int, Field(description="The log's last position when the answer began.")]
    problem: Annotated[dict[str, Any] | None, Field(description="What ended the answer early.")] = (
        None
    )


class StreamAnswer(BaseModel):
    stream: Stream
    items: list[AuditEvent]
    next: Annotated[int | None, Field(description="Version to go on after; null at the end.")]
    end: Annotated[int, Field(description="The stream's last version.")]


class Fact(BaseModel):
    position: int
    version: int
    type: str
    actor: str
    reason: str | None
    occurred_at: str
    recorded_at: str
    command_id: UUID


class StateAnswer(BaseModel):
    """`version`, `position`: the highest of the events that the state is of."""

    stream: Stream
    version: int
    events: int
    position: int
    last_event: Annotated[Fact, Field(description="The one that was folded last.")]
    state: dict[str, Any]


class Difference(BaseModel):
    what: str
    before: Any
    after: Any
    words: Annotated[
        str, Field(examples=["stage: bid → negotiation, by ann on 2026-03-01, reason: tender won"])
    ]
    made_by: Annotated[list[Fact], Field(description="The latest last.")]
    earlier_events: Annotated[int, Field(description="How many more there were before those.")]


class DifferenceAnswer(BaseModel):
    stream_id: UUID
    differences: list[Difference]


class Receipt(BaseModel):
    scope: str
    key: str
    status: int
    id: UUID
    version: int
    position: int
    recorded_at: str


class CommandCause(BaseModel):
    """`kind`: event, command, or unknown to this log."""

    id: UUID
    kind: str
    event: AuditEvent | None


class CausedEvent(BaseModel):
    position: int
    stream: Stream
    version: int
    type: str


class CausedCommand(BaseModel):
    command_id: UUID
    actor: str
    causation_id: UUID
    recorded_at: str
    events: list[CausedEvent]


class Reached(BaseModel):
    position: Annotated[int, Field(description="Up to there all of the command's keys are in it.")]
    visible: Annotated[bool, Field(description="Whether all of the command's events are in it.")]
    parked: Annotated[int, Field(description="Of its events: could not be applied, or wait.")]


class CommandAnswer(BaseModel):
    command_id: UUID
    actor: str
    reason: str | None
    recorded_at: str
    correlation_id: UUID
    causation_id: UUID | None
    traceparent: str | None
    receipts: Annotated[list[Receipt], Field(description="While they are kept.")]
    events: list[AuditEvent]
    more_events: bool
    caused_by: CommandCause | None
    caused: list[CausedCommand]
    more_caused: bool
    read_models: dict[str, Reached]
