"""Given events, when a command, then events or an error:
given(opened, fact(Opportunity.Suspended, approved_by=None)).when(
    lambda deal: deal.resume(at=NOW)
).then(fact(Opportunity.Resumed))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from domain.errors import DomainError

ID = UUID("11111111-1111-4111-8111-111111111111")
START = datetime(2024, 1, 1, 9, tzinfo=UTC)
NOW = datetime(2024, 7, 1, 9, tzinfo=UTC)


@dataclass(frozen=True)
class Fact:
    event_class: type[Any]
    fields: dict[str, Any]
    at: datetime | None = None

    def event(self, version: int) -> Any:
        """As version `version` of the stream ID, an hour after the one before."""
        fields = dict(self.fields)
        if version == 1:
            fields["originator_topic"] = self.event_class.TOPIC.rpartition(".")[0]
        fields["timestamp"] = self.at or START + timedelta(hours=version - 1)
        return self.event_class(originator_id=ID, originator_version=version, **fields)


def fact(event_class: type[Any], at: datetime | None = None, **fields: Any) -> Fact:
    return Fact(event_class, fields, at)


def replay(events: Iterable[Any]) -> Any:
    aggregate = None
    for event in events:
        aggregate = event.mutate(aggregate)
    return aggregate


class given:  # noqa: N801
    def __init__(self, *facts: Fact) -> None:
        self.past = [fact.event(version) for version, fact in enumerate(facts, 1)]

    def when(self, command: Callable[[Any], Any]) -> given:
        """`command` is given the aggregate, or None before its first event."""
        self.command = command
        return self

    def then(self, *expected: Fact) -> Any:
        """Exactly these events, with at least these fields; returns the aggregate."""
        aggregate = replay(self.past)
        result = self.command(aggregate)
        aggregate = aggregate or result
        events = list(aggregate.collect_events())
        assert [type(event) for event in events] == [fact.event_class for fact in expected]
        for event, fact in zip(events, expected, strict=True):
            shown = {name: getattr(event, name) for name in fact.fields}
            assert shown == fact.fields
            assert fact.at is None or event.timestamp == fact.at
        assert replay([*self.past, *events]) == aggregate
        return aggregate

    def refused(self, error: type[DomainError]) -> None:
        """Raises exactly `error`, and nothing has happened."""
        aggregate = replay(self.past)
        with pytest.raises(error) as caught:
            self.command(aggregate)
        assert caught.type is error
        assert aggregate is None or not aggregate.pending_events
