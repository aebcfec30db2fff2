"""The answers at random dates, as known at random positions, against a slow and separate refold
of the raw events."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from random import Random
from typing import Any
from uuid import UUID

import pytest

from domain.campaign import Campaign
from domain.customer import Customer
from domain.opportunity import Opportunity
from domain.pipeline import DEFAULT_STAGES
from infra.eventstore.feed import Recorded
from projections import attribution, funnel, lifecycle
from projections.attribution import RULES, Asked, Fits, Model
from projections.lifecycle import Classification
from projections.reading import Moment
from tests.integration.projections.conftest import Models
from tests.integration.projections.story import PIPELINE, START, Story
from tests.integration.projections.strategies import random_story

pytestmark = pytest.mark.database

CHANCES = {"prospect": "0.36", "bid": "0.72", "negotiation": "0.90", "contract": "1"}


def visible(story: Story, moment: Moment) -> list[Recorded]:
    """What had happened and was recorded, in the order of time."""
    known_at = len(story.events) if moment.known_at is None else moment.known_at
    seen = [e for e in story.events[:known_at] if e.occurred_at <= moment.as_of]
    return sorted(seen, key=lambda e: (e.occurred_at, e.position))


def deals_at(events: list[Recorded]) -> dict[UUID, dict[str, Any]]:
    deals: dict[UUID, dict[str, Any]] = {}
    for e in events:
        event, deal = e.event, deals.get(e.stream_id)
        match event:
            case Opportunity.Created():
                deals[e.stream_id] = {
                    "stage": event.stage,
                    "status": "open",
                    "amount": event.amount.value,
                    "currency": event.amount.currency,
                    "owner": event.owner,
                    "won_amount": None,
                    "competitor": None,
                    "reviewed": False,
                    "closed": False,
                    "entered_at": e.occurred_at,
                    "chance": None,
                }
                continue
        if deal is None:
            continue
        running = deal["status"] in ("open", "suspended")
        match event:
            case Opportunity.StageAdvanced() | Opportunity.StageMovedBack() if running:
                deal |= {"stage": event.to_stage, "entered_at": e.occurred_at}
            case Opportunity.AmountChanged():
                deal["amount"] = event.amount.value
            case Opportunity.Transferred():
                deal["owner"] = event.to_owner
            case Opportunity.Suspended() if deal["status"] == "open":
                deal["status"] = "suspended"
            case Opportunity.Resumed() if deal["status"] == "suspended":
                deal["status"] = "open"
            case Opportunity.Terminated() if running:
                deal["status"] = "terminated"
            case Opportunity.ContractSigned() if running:
                deal |= {"status": "won", "won_amount": event.amount.value}
            case Opportunity.Lost() if running:
                deal |= {"status": "lost", "competitor": event.competitor}
            case Opportunity.Reviewed():
                deal["reviewed"] = True
                if event.competitor is not None:
                    deal["competitor"] = event.competitor
            case Opportunity.ChanceEstimated():
                deal["chance"] = event.chance
            case Opportunity.Closed():
                deal["closed"] = True
    return deals


def standing_at(events: list[Recorded]) -> dict[UUID, dict[str, str]]:
    found: dict[UUID, dict[str, str]] = {}
    orders: dict[UUID, int] = defaultdict(int)
    contracts: dict[UUID, set[UUID]] = defaultdict(set)
    identified: set[UUID] = set()
    delivered: set[UUID] = set()
    relevant = (
        Customer.Created, Customer.CampaignResponded, Customer.OrderPlaced, Customer.LevelChanged,
        Customer.Churned, Customer.WonBack, Customer.Delivered, Opportunity.Created,
        Opportunity.ContractSigned,
    )  # fmt: skip
    for e in events:
        event = e.event
        told = isinstance(event, Customer.ProfileChanged) and event.identified is not None
        if not isinstance(event, relevant) and not told:
            continue
        one = found.setdefault(
            e.partition_key, {"type": "prospect", "path": "prospect", "level": "none"}
        )
        if getattr(event, "identified", None):
            identified.add(e.partition_key)
        if isinstance(event, Customer.Delivered):
            delivered.add(e.partition_key)
        bought = isinstance(event, Customer.OrderPlaced)
        if isinstance(event, Opportunity.ContractSigned):
            bought = e.stream_id not in contracts[e.partition_key]
            contracts[e.partition_key].add(e.stream_id)
        if bought:
            orders[e.partition_key] += 1
            one["path"] = "order" if orders[e.partition_key] == 1 else "repeat"
            if one["type"] != "relationship":
                one |= {"type": "relationship", "level": "new"}
        match event:
            case Opportunity.Created() if one["path"] == "prospect":
                one["path"] = "opportunity"
            case Customer.CampaignResponded() if one["type"] == "prospect":
                one["type"] = "responder"
            case Customer.Churned():
                one |= {"type": "lost", "level": "none"}
            case Customer.WonBack() if one["type"] == "lost":
                one |= {"type": "relationship", "level": "new"}
            case Customer.LevelChanged() if one["type"] == "relationship":
                one["level"] = event.level.value
    names = {"prospect": "prospect", "opportunity": "sales_opportunity"}
    for customer, one in found.items():
        one["identification"] = (
            names.get(one["path"], "order") if customer in identified else "to_be_identified"
        )
        if customer in identified & delivered:
            one["identification"] = "user"
    return found


def credits_at(
    events: list[Recorded], model: Model, currency: str
) -> tuple[dict[UUID, Decimal], Decimal]:
    """Not those of campaigns that touched a win and earned nothing."""
    touches: dict[UUID, list[tuple[Any, UUID, int]]] = defaultdict(list)
    prospects: dict[UUID, int | None] = {}  # the lead of each customer that is no prospect any more
    opened: dict[UUID, Any] = {}
    earned: dict[UUID, Decimal] = defaultdict(Decimal)
    unattributed, wins = Decimal(0), {}
    for e in events:
        if isinstance(e.event, Customer.CampaignResponded):
            touches[e.stream_id].append((e.occurred_at, e.event.campaign_id, e.position))
            prospects.setdefault(e.stream_id, e.position)
        elif isinstance(e.event, Customer.OrderPlaced | Customer.Churned):
            prospects.setdefault(e.stream_id, None)
        elif isinstance(e.event, Opportunity.Created):
            if e.event.campaign_id:
                touches[e.partition_key].append((e.occurred_at, e.event.campaign_id, e.position))
            opened[e.stream_id] = e.occurred_at
        elif isinstance(e.event, Opportunity.Lost):
            opened.pop(e.stream_id, None)
        elif isinstance(e.event, Opportunity.ContractSigned) and e.stream_id not in wins:
            wins[e.stream_id] = e, opened.get(e.stream_id)
            prospects.setdefault(e.partition_key, None)
    for e, opening in wins.values():
        if e.event.amount.currency != currency:
            continue
        within = [
            touch
            for touch in touches[e.partition_key]
            if e.occurred_at - timedelta(days=90) < touch[0] <= e.occurred_at
        ]
        if not within:
            unattributed += e.event.amount.value
            continue
        weights = weights_of(within, model, prospects[e.partition_key], opening)
        minor = 1 if currency == "JPY" else 100
        units = int(e.event.amount.value * minor)
        shares = [units * weight / sum(weights) for weight in weights]
        whole = [share.numerator // share.denominator for share in shares]
        missing = units - sum(whole)
        for place in sorted(range(len(whole)), key=lambda i: whole[i] - shares[i])[:missing]:
            whole[place] += 1
        for (_, campaign, _), part in zip(within, whole, strict=True):
            earned[campaign] += Decimal(part) / minor
    return {campaign: credit for campaign, credit in earned.items() if credit}, unattributed


def weights_of(
    within: list[tuple[Any, UUID, int]], model: Model, lead: int | None, opening: Any
) -> list[Fraction]:
    """By the definitions, touch by touch."""
    count = len(within)
    if model is Model.LINEAR or count == 1:
        return [Fraction(1)] * count
    if model is Model.TIME_DECAY:
        ages = [within[-1][0] - at for at, _, _ in within]
        assert all(age % timedelta(days=1) == timedelta(0) for age in ages)
        powers = [2 ** (-(age / timedelta(days=7))) for age in ages]
        return [Fraction(power) for power in powers]
    anchors: list[set[int]] = [set() for _ in range(count)]  # which anchors each touch is
    anchors[0].add(0)
    anchors[-1].add(3)
    for place, (at, _, position) in enumerate(within):
        if position == lead:
            anchors[place].add(1)
        if (
            opening is not None
            and at <= opening
            and not any(t[0] <= opening for t in within[place + 1 :])
        ):
            anchors[place].add(2)
    wanted, middle = {
        Model.FIRST: ({0: 1}, 0),
        Model.LAST: ({3: 1}, 0),
        Model.U: ({0: 40, 3: 40}, 20),
        Model.W: ({0: 30, 1: 30, 2: 30}, 10),
        Model.FULL_PATH: (dict.fromkeys(range(4), Fraction(45, 2)), 10),
    }[model]
    between = [place for place in range(count) if not anchors[place] & wanted.keys()]
    return [
        Fraction(sum(wanted.get(anchor, 0) for anchor in own))
        + (Fraction(middle, len(between)) if place in between else 0)
        for place, own in enumerate(anchors)
    ]


@pytest.mark.parametrize("seed", [21, 22, 23])
def test_every_answer_is_that_of_a_refold(models: Models, seed: int) -> None:
    story = random_story(seed, 260, customers=5)
    models.project(story, batch=50)
    random = Random(seed)
    end = max(event.occurred_at for event in story.events)
    moments = [Moment(end, None, latest=True)]
    for _ in range(40):
        as_of = START + (end - START) * random.random()
        if random.random() < 0.5:  # exactly at an event
            as_of = random.choice(story.events).occurred_at
        moments.append(Moment(as_of, random.choice([None, random.randint(0, len(story.events))])))
    for moment in moments:
        events = visible(story, moment)
        check_deals(models, moment, deals_at(events))
        check_standing(models, moment, standing_at(events))
        for currency in ("CNY", "JPY"):
            answers = models.ask(
                attribution.attributions,
                moment,
                models=RULES,
                asked=Asked(currency),
                fits=Fits(),
            )
            for found in answers:
                expected, unattributed = credits_at(events, found.model, currency)
                earned = {one.campaign_id: one.credit for one in found.campaigns if one.credit}
                assert earned == expected, found.model
                assert found.unattributed == unattributed
        check_campaigns(models, moment, events)


def check_deals(models: Models, moment: Moment, expected: dict[UUID, dict[str, Any]]) -> None:
    rows = {row.id: row for row in models.ask(funnel.deals, moment, limit=1000).rows}
    assert {
        deal: {name: getattr(row, name) for name in expected[deal]} for deal, row in rows.items()
    } == expected
    assert [stage.name for stage in DEFAULT_STAGES] == list(CHANCES)
    for currency in ("CNY", "JPY"):
        found = models.ask(funnel.funnel, moment, pipeline_id=PIPELINE, currency=currency)
        if found is None:
            assert moment.known_at == 0
            continue
        for stage in found.stages:
            there = [
                deal["amount"]
                for deal in expected.values()
                if (deal["stage"], deal["status"], deal["currency"])
                == (stage.stage, "open", currency)
            ]
            assert (stage.deals, stage.amount) == (len(there), sum(there))
            weighted = sum(there) * Decimal(CHANCES[stage.stage])
            assert abs(stage.weighted - weighted) <= (Decimal("0.005") if currency == "CNY" else 1)


def check_standing(models: Models, moment: Moment, expected: dict[UUID, dict[str, str]]) -> None:
    for classification in Classification:
        found = models.ask(lifecycle.distribution, moment, classification=classification)
        counts: dict[str, int] = defaultdict(int)
        for one in expected.values():
            counts[one[classification.value]] += 1
        assert {v.value: v.customers for v in found.distribution if v.customers} == counts
        assert found.customers == len(expected)
    for customer, one in expected.items():
        standing = models.ask(lifecycle.standing, customer, moment)
        assert {s.classification.value: s.value for s in standing} == one


def check_campaigns(models: Models, moment: Moment, events: list[Recorded]) -> None:
    found = {one.campaign_id: one for one in models.ask(attribution.performance, moment)}
    for campaign in {e.stream_id for e in events if isinstance(e.event, Campaign.Created)}:
        costs = [
            e.event.amount.value
            for e in events
            if e.stream_id == campaign and isinstance(e.event, Campaign.CostBooked)
        ]
        responses = [
            e
            for e in events
            if isinstance(e.event, Customer.CampaignResponded) and e.event.campaign_id == campaign
        ]
        deals = [
            e
            for e in events
            if isinstance(e.event, Opportunity.Created) and e.event.campaign_id == campaign
        ]
        one = found.pop(campaign)
        assert (one.cost, one.responses, one.deals) == (sum(costs), len(responses), len(deals))
    assert found == {}
