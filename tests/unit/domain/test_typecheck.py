from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest

from domain.campaign import Campaign
from domain.customer import Customer
from domain.exchange_rate import ExchangeRate
from domain.member import Member
from domain.opportunity import Opportunity
from domain.pipeline import Pipeline
from domain.typecheck import _fields, check_types
from domain.values import Level, Money, Personal
from tests.given_when_then import ID, NOW, fact
from tests.unit.domain.streams import opened_deal

AGGREGATES = (Pipeline, Customer, Opportunity, Campaign, ExchangeRate, Member)


class Word(StrEnum):
    YES = "yes"


@dataclass(frozen=True)
class Everything:
    number: int = 1
    flag: bool = True
    ratio: float = 0.5
    exact: Decimal = Decimal(1)
    word: Word = Word.YES
    note: str = "客户"
    id: UUID = ID
    day: date = date(2024, 1, 1)
    moment: datetime = NOW
    maybe: Money | None = None
    many: tuple[Money, ...] = ()
    loose: tuple[str, ...] = ()
    named: dict[str, str | int | float | bool] | None = None


@pytest.mark.parametrize(
    "good",
    [
        {},
        {"maybe": Money(Decimal(1), "EUR"), "many": (Money(Decimal(2), "EUR"),)},
        {"named": {"a": 1, "b": True, "c": "x", "d": 0.5}},
    ],
)
def test_takes_what_is_annotated(good: dict[str, Any]) -> None:
    check_types(Everything(**good))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("number", True),
        ("number", 1.0),
        ("number", None),
        ("flag", 1),
        ("ratio", 1),
        ("ratio", float("nan")),
        ("ratio", float("inf")),
        ("exact", 1),
        ("exact", Decimal("NaN")),
        ("exact", Decimal("-Infinity")),
        ("word", "yes"),
        ("note", Word.YES),
        ("note", "a\x00"),
        ("note", "\ud800"),
        ("id", str(ID)),
        ("day", NOW),
        ("day", "2024-01-01"),
        ("moment", date(2024, 1, 1)),
        ("moment", NOW.replace(tzinfo=None)),
        ("maybe", "1 EUR"),
        ("maybe", Money("1", "EUR")),  # type: ignore[arg-type]
        ("maybe", Money(Decimal("NaN"), "EUR")),
        ("many", [Money(Decimal(2), "EUR")]),
        ("many", (None,)),
        ("loose", ("a", "\x00")),
        ("named", {1: "a"}),
        ("named", {"a": None}),
        ("named", {"a": {"_type_": "x"}}),
        ("named", {"a": float("nan")}),
    ],
)
def test_refuses_anything_else_and_does_not_tell_the_value(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"Everything.{name} can't hold this"):
        check_types(Everything(**{name: value}))


def test_refuses_an_annotation_it_can_not_check() -> None:
    @dataclass
    class Odd:
        anything: Any

    with pytest.raises(TypeError, match="can't be checked"):
        check_types(Odd(1))


def test_personal_text_is_not_in_the_message() -> None:
    with pytest.raises(TypeError) as caught:
        opened_deal(name=Personal(ID, "Li Wei")).event(1)
    assert "Li Wei" not in str(caught.value)


def _event_classes() -> Iterator[Any]:
    for aggregate in AGGREGATES:
        for value in vars(aggregate).values():
            if isinstance(value, type) and aggregate.Event in value.__mro__[1:]:
                yield value


@pytest.mark.parametrize("event_class", list(_event_classes()), ids=lambda cls: cls.__qualname__)
def test_every_event_class_can_be_checked_and_is_named(event_class: Any) -> None:
    assert _fields(event_class)
    assert event_class.TOPIC.startswith("crm.")
    for version in range(1, event_class.class_version):
        assert callable(getattr(event_class, f"upcast_v{version}_v{version + 1}"))
    assert "class_version" not in event_class.__dataclass_fields__


def test_topics_are_unique() -> None:
    topics = [cls.TOPIC for cls in _event_classes()]
    assert len(topics) == len(set(topics)) == 53


def test_a_wrong_type_fails_when_the_event_is_built() -> None:
    wrong = fact(Customer.LevelChanged, level="growing", previous=Level.NEW)
    with pytest.raises(TypeError, match="level"):
        wrong.event(2)
    with pytest.raises(TypeError, match="timestamp"):
        fact(Opportunity.Closed, at=datetime(2024, 1, 1)).event(2)  # noqa: DTZ001
    assert fact(Opportunity.Closed, at=datetime(2024, 1, 1, tzinfo=UTC)).event(2)
