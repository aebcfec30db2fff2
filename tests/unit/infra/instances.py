"""Instances of any class of the domain, made up from its annotations."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Union
from uuid import UUID

from eventsourcing.domain import Aggregate
from hypothesis import strategies as st

from domain.aggregate import LedgerAggregate
from domain.campaign import Campaign
from domain.customer import Customer
from domain.exchange_rate import ExchangeRate
from domain.opportunity import Opportunity
from domain.pipeline import Pipeline
from domain.values import Personal

AGGREGATES: tuple[type[LedgerAggregate], ...] = (
    Campaign,
    Customer,
    ExchangeRate,
    Opportunity,
    Pipeline,
)

texts = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\x00")),
    st.sampled_from(
        ["_type_", "_data_", '{"_type_": "uuid", "_data_": 1}', "null", "🙈", "\u202e"]
    ),
)
keys = st.one_of(texts, st.sampled_from(["_type_", "__class__", "state", ""]))
times = st.datetimes(datetime(1900, 1, 1), datetime(2999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001

PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    NoneType: st.none(),
    bool: st.booleans(),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    str: texts,
    UUID: st.uuids(),
    date: st.dates(),
    datetime: times,
    Personal: st.builds(Personal, st.uuids(), texts),
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of an annotated type."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in PLAIN:
        return PLAIN[hint]
    if origin in (Union, UnionType):
        return st.one_of([values(arg) for arg in args])
    if origin is tuple:
        return st.lists(values(args[0]), max_size=3).map(tuple)
    if origin is set:
        return st.sets(values(args[0]), max_size=3)
    if origin is dict:
        names = keys if args[0] is str else values(args[0])
        return st.dictionaries(names, values(args[1]), max_size=4)
    if issubclass(hint, Enum):
        return st.sampled_from(hint)
    return st.builds(hint, **fields(hint))


def fields(cls: type[Any]) -> dict[str, st.SearchStrategy[Any]]:
    hints = typing.get_type_hints(cls)
    return {field.name: values(hints[field.name]) for field in dataclasses.fields(cls)}


def event_classes() -> Iterator[type[LedgerAggregate.Event]]:
    for aggregate in AGGREGATES:
        for _, cls in inspect.getmembers(aggregate, inspect.isclass):
            if issubclass(cls, LedgerAggregate.Event) and "TOPIC" in vars(cls):
                yield cls


def events(cls: type[LedgerAggregate.Event]) -> st.SearchStrategy[Any]:
    made = fields(cls)
    if issubclass(cls, Aggregate.Created):
        made["originator_version"] = st.just(1)
        made["originator_topic"] = st.just(vars(cls)["TOPIC"].rpartition(".")[0])
    else:
        made["originator_version"] = st.integers(2, 2**31 - 1)
    return st.builds(cls, **made)


def states(cls: type[LedgerAggregate]) -> st.SearchStrategy[dict[str, Any]]:
    """The declared attributes of an aggregate."""
    return st.fixed_dictionaries(fields(cls))
