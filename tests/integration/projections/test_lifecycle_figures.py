"""Flows, losses and cohorts at any two times, against what plain loops over the events say."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from domain.customer import Customer
from domain.opportunity import Opportunity
from infra.eventstore.feed import Recorded
from projections import lifecycle
from projections.lifecycle import ABSENT, Classification, CohortsBy
from projections.reading import Moment
from tests.integration.projections.conftest import Models
from tests.integration.projections.oracle.refold import Refold, visible
from tests.integration.projections.story import START, Story
from tests.integration.projections.strategies import random_story

pytestmark = pytest.mark.database

ZONES = ("Pacific/Kiritimati", "Pacific/Honolulu", "Asia/Shanghai")
EVER = {"start": START - timedelta(days=1), "end": START + timedelta(days=10_000)}


@pytest.mark.parametrize("seed", range(6))
def test_figures_are_those_of_the_events(models: Models, seed: int) -> None:
    story, random = random_story(seed, 260, customers=9), Random(seed)
    models.project(story)
    last = max(event.occurred_at for event in story.events)
    for _ in range(12):
        as_of = START + (last - START) * random.random() * 1.1
        known_at = random.choice([None, random.randint(0, len(story.events))])
        moment = Moment(as_of, known_at)
        events = visible(story.events, as_of, known_at)
        _flows(models, story, moment, random)
        _losses(models, moment, events)
        for by in CohortsBy:
            _cohorts(models, moment, events, by, ZoneInfo(random.choice(ZONES)))


def _flows(models: Models, story: Story, moment: Moment, random: Random) -> None:
    span = moment.as_of - START
    dates = sorted({START + span * random.random() for _ in range(3)} | {moment.as_of})
    for classification in Classification:
        found = models.ask(lifecycle.flows, moment, classification=classification, dates=dates)
        on_date = [
            {
                id_: one.values[classification.value]
                for id_, one in Refold(
                    visible(story.events, date, moment.known_at)
                ).customers.items()
            }
            for date in dates
        ]
        assert found.customers == len(on_date[-1])
        ways = [[there.get(id_, ABSENT) for there in on_date] for id_ in on_date[-1]]
        nodes = Counter((step, value) for way in ways for step, value in enumerate(way))
        assert {(n.step, n.value): n.customers for n in found.nodes} == dict(nodes)
        links = Counter(
            (step, *way[step : step + 2]) for way in ways for step in range(len(way) - 1)
        )
        assert {(n.step, n.source, n.target): n.customers for n in found.links} == dict(links)


def _losses(models: Models, moment: Moment, events: list[Recorded]) -> None:
    """A customer is lost from an instant on if it was not before, and no longer at its end."""
    lost: dict[UUID, bool] = defaultdict(bool)
    since: dict[UUID, dict[datetime, str]] = defaultdict(dict)
    for event in _once(events):
        who, e = event.partition_key, event.event
        if isinstance(e, Customer.Churned):
            if not lost[who]:
                since[who][event.occurred_at] = e.cause.value
            lost[who] = True
        elif lost[who] and (isinstance(e, Customer.WonBack) or _buys(e)):
            lost[who] = False
            since[who].pop(event.occurred_at, None)
    expected = Counter(cause for one in since.values() for cause in one.values())
    found = models.ask(lifecycle.loss_causes, moment, **EVER)
    assert {one.cause: one.losses for one in found} == dict(expected)
    listed = models.ask(lifecycle.losses, moment, limit=1000, **EVER).rows
    assert sorted((one.customer_id, one.lost_at, one.cause) for one in listed) == sorted(
        (who, at, cause) for who, one in since.items() for at, cause in one.items()
    )


def _once(events: list[Recorded]) -> Iterator[Recorded]:
    """A deal is won by the first contract only."""
    signed: set[UUID] = set()
    for event in events:
        if isinstance(event.event, Opportunity.ContractSigned):
            if event.stream_id in signed:
                continue
            signed.add(event.stream_id)
        yield event


def _buys(e: Any) -> bool:
    return isinstance(e, Customer.OrderPlaced | Opportunity.ContractSigned)


def _cohorts(
    models: Models, moment: Moment, events: list[Recorded], by: CohortsBy, zone: ZoneInfo
) -> None:
    bought: dict[UUID, list[tuple[int, str, Decimal]]] = defaultdict(list)
    registered: dict[UUID, int] = {}
    for event in _once(events):
        who, e = event.partition_key, event.event
        on = event.occurred_at.astimezone(zone).date()
        if isinstance(e, Opportunity.ContractSigned):
            on = e.signed_on
        month = on.year * 12 + on.month - 1
        if _buys(e):
            bought[who].append((month, e.amount.currency, e.amount.value))
        elif isinstance(e, Customer.Created):
            registered[who] = month
    firsts = {who: min(months)[0] for who, months in bought.items()}
    came = registered if by is CohortsBy.REGISTRATION else firsts
    asked = {"by": by, "currency": "CNY", "timezone": zone, "months": 120}
    found = models.ask(lifecycle.cohorts, moment, **asked)
    sizes = {one.starts.year * 12 + one.starts.month - 1: one.customers for one in found.cohorts}
    assert sizes == dict(Counter(came.values()))
    active: dict[tuple[int, int], set[UUID]] = defaultdict(set)
    revenue: dict[tuple[int, int], Decimal] = defaultdict(Decimal)
    for who, months in bought.items():
        for month, currency, amount in months if who in came else ():
            active[came[who], month].add(who)
            revenue[came[who], month] += amount if currency == "CNY" else 0
    related = Refold(events).customers
    for cohort in found.cohorts:
        start = cohort.starts.year * 12 + cohort.starts.month - 1
        for one in cohort.months:
            cell = (start, start + one.month)
            assert (one.active, one.revenue) == (len(active[cell]), revenue[cell])
        members = [who for who, month in came.items() if month == start]
        still = sum(related[who].values["type"] == "relationship" for who in members)
        assert cohort.months[-1].retained == still
    others = sum(one.count for one in found.other_currencies)
    assert others == sum(c != "CNY" for w in came for _, c, _ in bought.get(w, ()))
