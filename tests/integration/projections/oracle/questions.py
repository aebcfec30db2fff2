"""The product's answers over PostgreSQL, each held against the refold's. One module knows how the
queries are called."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from random import Random
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from projections import attribution, funnel, lifecycle
from projections.attribution import Model
from projections.funnel import MonthsBy, Timing
from projections.lifecycle import Classification
from projections.reading import Moment
from tests.integration.projections.conftest import Models
from tests.integration.projections.oracle.histories import DAYS, PIPELINES
from tests.integration.projections.oracle.refold import (
    CLASSIFICATIONS,
    RULE_MODELS,
    Deal,
    Outlook,
    Refold,
    root,
    rounded,
    state_of,
    visible,
)
from tests.integration.projections.story import START, Story

CURRENCIES = ("CNY", "EUR", "JPY")
MONTHS = 4
ZONE = ZoneInfo("UTC")
FORECASTS = (
    ("half_elapsed", "relative"),
    ("half_elapsed", "calendar"),
    ("full_duration", "relative"),
    ("aged", "relative"),
)


@dataclass
class Asker:
    """Asks about one log. `questions` counts the answers compared."""

    models: Models
    story: Story
    questions: int = 0

    def ask_all(self, moment: Moment, start: datetime, end: datetime) -> None:
        """Every question at the moment; those about a period are about [start, end)."""
        events = visible(self.story.events, moment.as_of, moment.known_at)
        truth = Refold(events)
        known = (
            self.story.events if moment.known_at is None else self.story.events[: moment.known_at]
        )
        self.deals(moment, truth)
        self.lifecycle(moment, truth, start, end)
        self.attribution(moment, truth, start.date(), end.date())
        self.outlook(moment, truth, Outlook(known))

    def same(self, what: str, moment: Moment, found: Any, expected: Any) -> None:
        self.questions += 1
        assert found == expected, f"{what} at {moment}: {found} instead of {expected}"

    # Deals

    def deals(self, moment: Moment, truth: Refold) -> None:
        """The state of each, one by one."""
        rows = {row.id: row for row in self._pages(moment)}
        self.same("deals", moment, rows.keys(), truth.deals.keys())
        for id_, deal in truth.deals.items():
            expected = state_of(deal)
            found = {name: getattr(rows[id_], name) for name in expected}
            self.same(f"deal {id_}", moment, found, expected)

    def _pages(self, moment: Moment) -> Iterator[Any]:
        after: tuple[str, UUID] | None = None
        while True:
            page = self.models.ask(funnel.deals, moment, limit=1000, after=after)
            yield from page.rows
            after = page.next
            if after is None:
                return

    # Lifecycle

    def lifecycle(self, moment: Moment, truth: Refold, start: datetime, end: datetime) -> None:
        for name in CLASSIFICATIONS:
            classification = Classification(name)
            found = self.models.ask(lifecycle.distribution, moment, classification=classification)
            counts = {one.value: one.customers for one in found.distribution if one.customers}
            self.same(f"distribution by {name}", moment, counts, dict(truth.distribution(name)))
            self.same(f"customers by {name}", moment, found.customers, len(truth.customers))
            moved = self.models.ask(
                lifecycle.transitions, moment, classification=classification, start=start, end=end
            )
            expected = truth.moves(name, start, end)
            moves = {(move.from_value, move.to_value): move.moves for move in moved.moves}
            self.same(f"transitions by {name}", moment, moves, dict(expected))
            left = {one.value: one.departures for one in moved.departures if one.departures}
            departures: dict[str, int] = {}
            for (value, _), count in expected.items():
                departures[value] = departures.get(value, 0) + count
            self.same(f"departures by {name}", moment, left, departures)
            stable = truth.moves("level", start, end)["stable", "none"]
            self.same("stable to lost", moment, moved.stable_to_lost, stable)

    def standing(self, moment: Moment, customer: UUID, truth: Refold) -> None:
        """One customer's."""
        found = self.models.ask(lifecycle.standing, customer, moment)
        one = truth.customers.get(customer)
        expected = {} if one is None else one.values
        values = {standing.classification.value: standing.value for standing in found}
        self.same(f"standing of {customer}", moment, values, expected)

    # Attribution

    def attribution(self, moment: Moment, truth: Refold, start: date, end: date) -> None:
        won = truth.revenue(start, end)
        for currency in CURRENCIES:
            revenue = won.get(currency, (0, Decimal(0)))[1]
            others = {other: figures for other, figures in won.items() if other != currency}
            answers = self.models.ask(
                attribution.attributions,
                moment,
                models=[Model(model) for model in RULE_MODELS],
                asked=attribution.Asked(currency, start, end),
                fits=attribution.Fits(),
            )
            for model, found in zip(RULE_MODELS, answers, strict=True):
                earned, unattributed = truth.credits(model, currency, start, end)
                assert unattributed + sum(earned.values()) == revenue
                what = f"attribution by {model} in {currency} from {start} to {end}"
                credits = {one.campaign_id: one.credit for one in found.campaigns}
                self.same(what, moment, credits, earned)
                self.same(f"unattributed: {what}", moment, found.unattributed, unattributed)
                self.same(f"revenue: {what}", moment, found.revenue, revenue)
                beside = {one.currency: (one.count, one.amount) for one in found.other_currencies}
                self.same(f"other currencies: {what}", moment, beside, others)

        self.data_driven(moment, won.get("CNY", (0, Decimal(0)))[1], truth, start, end)

    def data_driven(
        self, moment: Moment, revenue: Decimal, truth: Refold, start: date, end: date
    ) -> None:
        """What they share out is what had a touch, to the minor unit."""
        answers = self.models.ask(
            attribution.attributions,
            moment,
            models=[Model.MARKOV, Model.SHAPLEY],
            asked=attribution.Asked("CNY", start, end),
            fits=attribution.Fits(),
        )
        _, unattributed = truth.credits("last", "CNY", start, end)
        for found in answers:
            what = f"attribution by {found.model} from {start} to {end}"
            self.same(what, moment, (found.revenue, found.unattributed), (revenue, unattributed))
            earned = sum((one.credit for one in found.campaigns), Decimal(0))
            self.same(f"sum: {what}", moment, earned, revenue - unattributed)

    # Funnel and forecast

    def outlook(self, moment: Moment, truth: Refold, outlook: Outlook) -> None:
        for pipeline in PIPELINES:
            for currency in CURRENCIES:
                deals = truth.open_deals(pipeline, currency)
                self.funnel(moment, pipeline, currency, deals, outlook)
                for timing, by in FORECASTS:
                    self.forecast(moment, truth, outlook, pipeline, currency, timing, by)

    def funnel(
        self, moment: Moment, pipeline: UUID, currency: str, deals: list[Deal], outlook: Outlook
    ) -> None:
        found = self.models.ask(funnel.funnel, moment, pipeline_id=pipeline, currency=currency)
        what = f"funnel of {pipeline} in {currency}"
        if found is None:
            self.same(what, moment, outlook.knows(pipeline), False)
            return
        stages = {
            one.stage: (one.deals, one.amount, one.weighted) for one in found.stages if one.deals
        }
        self.same(what, moment, stages, outlook.funnel(deals, currency))

    def forecast(
        self,
        moment: Moment,
        truth: Refold,
        outlook: Outlook,
        pipeline: UUID,
        currency: str,
        timing: str,
        by: str,
    ) -> None:
        found = self.models.ask(
            funnel.forecast,
            moment,
            pipeline_id=pipeline,
            currency=currency,
            timezone=ZONE,
            timing=Timing(timing),
            months=MONTHS,
            by=MonthsBy(by),
        )
        what = f"forecast of {pipeline} in {currency}, {timing}, {by}"
        if found is None:
            self.same(what, moment, outlook.knows(pipeline), False)
            return
        deals = truth.open_deals(pipeline, currency)
        expected = outlook.forecast(deals, timing, by, moment.as_of, MONTHS)
        for place, month in enumerate(found.outlook.months):
            closed = truth.closed(pipeline, currency, month.start, month.end)
            sums = month.sums
            self.same(
                f"month {month.month}: {what}",
                moment,
                (sums.expected, sums.commit, sums.best_case, sums.closed),
                (
                    rounded(expected.mean[place], currency),
                    rounded(expected.commit[place], currency),
                    rounded(expected.best_case[place], currency),
                    closed,
                ),
            )
            self.near(f"sd of {what}", moment, sums.sd, root(expected.variance[place], currency))
        total, spread = found.outlook.total, sum(expected.variance[:MONTHS], Fraction(0))
        months = [month.sums.expected for month in found.outlook.months]
        self.same(f"total: {what}", moment, total.expected, sum(months))
        self.near(f"sd: {what}", moment, total.sd, root(spread, currency))
        beyond = rounded(expected.mean[MONTHS], currency)
        self.same(f"beyond: {what}", moment, found.outlook.beyond, beyond)
        self.same(f"deals: {what}", moment, found.outlook.deals, len(deals))

    def near(self, what: str, moment: Moment, found: Decimal, expected: Decimal) -> None:
        """Of figures that are computed with floats and rounded."""
        self.questions += 1
        allowed = max(Decimal(1).scaleb(found.as_tuple().exponent), expected / 10**9)
        assert abs(found - expected) <= allowed, f"{what} at {moment}: {found}, not {expected}"


def moments(
    story: Story, random: Random, count: int
) -> Iterator[tuple[Moment, datetime, datetime]]:
    """The present, before everything, and random times between, half of them at the very instant
    of an event; known now, or as at a random position."""
    end = max(event.occurred_at for event in story.events)
    yield Moment(end, None, latest=True), START, end + timedelta(days=1)
    yield Moment(START - timedelta(days=1), None), START, end
    for _ in range(count - 2):
        as_of = START + timedelta(seconds=random.randrange((DAYS + 5) * 86_400))
        if random.random() < 0.5:
            as_of = random.choice(story.events).occurred_at
        known = random.choice(
            [None, random.randint(0, len(story.events)), recorded_by(story, as_of)]
        )
        first, last = sorted(random.sample(range(DAYS + 5), 2))
        days = [START.replace(hour=0) + timedelta(days=day) for day in (first, last)]
        yield Moment(as_of.astimezone(UTC), known), days[0], days[1]


def recorded_by(story: Story, as_of: datetime) -> int:
    """A position at which about everything up to `as_of` was recorded, and late facts were not."""
    return sum(event.occurred_at <= as_of for event in story.events)
