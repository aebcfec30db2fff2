"""The product's answers over PostgreSQL, each held against the refold's. One module knows how the
queries are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from random import Random
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from infra.eventstore.feed import Recorded
from projections import attribution, funnel, lifecycle
from projections.attribution import Attribution, Model
from projections.funnel import MonthsBy, Timing
from projections.funnel.fits import Fits
from projections.funnel.rates import Conversion, Rate, conversion
from projections.lifecycle import Classification
from projections.reading import Moment
from tests.integration.projections.oracle import stays, value, waterfall
from tests.integration.projections.oracle.comparing import Comparer
from tests.integration.projections.oracle.histories import DAYS, PIPELINES
from tests.integration.projections.oracle.learned import Learned
from tests.integration.projections.oracle.rates import Converter, Quote
from tests.integration.projections.oracle.refold import (
    CLASSIFICATIONS,
    RULE_MODELS,
    Deal,
    Expected,
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
    ("half_elapsed", "relative", False),
    ("half_elapsed", "calendar", False),
    ("half_elapsed", "calendar", True),
    ("full_duration", "relative", False),
    ("aged", "relative", False),
    ("learned", "relative", False),
    ("learned", "calendar", True),
)
"""Timing, months, whether converted."""


@dataclass
class Asker(Comparer):
    """Asks all there is to ask about one log."""

    fits: Fits = field(default_factory=Fits)

    def ask_all(self, moment: Moment, start: datetime, end: datetime) -> None:
        """Every question at the moment; those about a period are about [start, end)."""
        events = visible(self.story.events, moment.as_of, moment.known_at)
        truth = Refold(events)
        known = (
            self.story.events if moment.known_at is None else self.story.events[: moment.known_at]
        )
        self.deals(moment, truth)
        self.lifecycle(moment, truth, start, end)
        today = moment.as_of.astimezone(ZONE).date()
        plain = [Converter.none(currency) for currency in CURRENCIES]
        converters = [Converter.of(known, currency, today) for currency in CURRENCIES]
        self.rates(moment, converters)
        converters = [one for one in converters if one.quotes]
        self.attribution(moment, truth, [*plain, *converters], start.date(), end.date())
        self.outlook(moment, truth, Outlook(known), known, plain, converters)
        waterfall.ask(self, moment, known, start, end)
        stays.ask(self, moment, truth, events, start, end, ZONE)
        for currency in ("CNY", "JPY"):
            value.ask(self, moment, events, ZONE, currency)

    def rates(self, moment: Moment, converters: Sequence[Converter]) -> None:
        """The rates that answers are converted by."""
        for into in converters:
            found = self.models.ask(conversion, moment, into.currency, ZONE)
            self.same(f"rates into {into.currency}", moment, found.rates, _rates(into))
            self.tell("rates", found.rates)

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
            for (old, _), count in expected.items():
                departures[old] = departures.get(old, 0) + count
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

    def attribution(
        self, moment: Moment, truth: Refold, converters: Sequence[Converter], start: date, end: date
    ) -> None:
        """All models side by side."""
        won = truth.revenue(start, end)
        for into in converters:
            own = [one for one in won if into.factor(one) is not None]
            exact = sum(
                (Fraction(won[one][1]) * (into.factor(one) or 0) for one in own), Fraction(0)
            )
            revenue = rounded(exact, into.currency)
            others = {other: won[other] for other in won if other not in own}
            answers = self.models.ask(
                attribution.attributions,
                moment,
                models=list(Model),
                asked=attribution.Asked(into.currency, start, end),
                fits=attribution.Fits(),
                converted=Conversion(into.currency, _rates(into)) if into.quotes else None,
            )
            for found in answers:
                name = found.model.value
                what = f"attribution by {name} in {into} from {start} to {end}"
                rule = name if name in RULE_MODELS else "last"
                earned, unattributed = truth.converted(rule, into, start, end)
                self.same(f"revenue: {what}", moment, found.revenue, revenue)
                self.same(f"unattributed: {what}", moment, found.unattributed, unattributed)
                credits = {one.campaign_id: one.credit for one in found.campaigns}
                if name in RULE_MODELS:
                    self.same(what, moment, credits, earned)
                # Those of data share out what had a touch, to the minor unit.
                total = sum(credits.values(), Decimal(0))
                self.same(f"sum: {what}", moment, total, revenue - unattributed)
                beside = {one.currency: (one.count, one.amount) for one in found.other_currencies}
                self.same(f"other currencies: {what}", moment, beside, others)
                self.same(f"rates: {what}", moment, _quotes(found.rates), into.used(own))
                self.costs(what, moment, truth, into, found)
                several = into.quotes and len(own) > 1 and any(credits.values())
                self.tell("attribution" if name in RULE_MODELS else "attribution by data", credits)
                self.tell("converted attribution", several)

    def costs(
        self, what: str, moment: Moment, truth: Refold, into: Converter, found: Attribution
    ) -> None:
        for one in found.campaigns:
            cost, currency = truth.costs.get(one.campaign_id, (Decimal(0), into.currency))
            factor = into.factor(currency)
            exact = None if factor is None else rounded(Fraction(cost) * factor, into.currency)
            gained = None
            if exact:
                share = (Fraction(one.credit) - Fraction(exact)) / Fraction(exact)
                gained = Decimal(round(share * 10**6)).scaleb(-6)
            self.same(f"cost: {what}", moment, (one.cost, one.return_), (exact, gained))
            self.tell("return", gained)

    # Funnel and forecast

    def outlook(
        self,
        moment: Moment,
        truth: Refold,
        outlook: Outlook,
        known: Sequence[Recorded],
        plain: Sequence[Converter],
        converters: Sequence[Converter],
    ) -> None:
        learned = self.learned(moment, known)
        for pipeline in PIPELINES:
            for into in (*plain, *converters):
                self.funnel(moment, pipeline, into, truth, outlook)
                for timing, by, converting in FORECASTS:
                    if converting == bool(into in converters):
                        models = learned if timing == "learned" else {}
                        self.forecast(moment, truth, outlook, models, pipeline, into, timing, by)
        for into in converters[:1]:  # and all pipelines together
            self.forecast(moment, truth, outlook, learned, None, into, "learned", "relative")

    def learned(self, moment: Moment, known: Sequence[Recorded]) -> dict[UUID, Learned]:
        today = moment.as_of.astimezone(ZONE).date()
        until = datetime.combine(today, time.min, tzinfo=ZONE)
        ordered = sorted(known, key=lambda event: (event.occurred_at, event.position))
        return {pipeline: Learned(ordered, pipeline, until) for pipeline in PIPELINES}

    def funnel(
        self, moment: Moment, pipeline: UUID, into: Converter, truth: Refold, outlook: Outlook
    ) -> None:
        converted = Conversion(into.currency, _rates(into)) if into.quotes else None
        found = self.models.ask(
            funnel.funnel,
            moment,
            pipeline_id=pipeline,
            currency=into.currency,
            converted=converted,
        )
        what = f"funnel of {pipeline} in {into}"
        if found is None:
            self.same(what, moment, outlook.knows(pipeline), False)
            return
        stages = {
            one.stage: (one.deals, one.amount, one.weighted) for one in found.stages if one.deals
        }
        deals = truth.open_deals(pipeline, into)
        self.same(what, moment, stages, outlook.funnel(deals, into))
        running = {deal.currency for deal in truth.of(pipeline, "open", "suspended")}
        self.same(f"rates: {what}", moment, _quotes(found.rates), into.used(running))
        others = {}
        for other in sorted({deal.currency for deal in truth.of(pipeline, "open")}):
            if into.factor(other) is None:
                alone = Converter.none(other)
                parts = outlook.sums(truth.open_deals(pipeline, alone), alone)
                others[other] = parts
        beside = {
            one.currency: (one.deals, one.amount, one.weighted) for one in found.other_currencies
        }
        self.same(f"other currencies: {what}", moment, beside, others)
        self.tell("funnel", stages)
        self.tell("converted funnel", into.used(deal.currency for deal in deals))

    def forecast(
        self,
        moment: Moment,
        truth: Refold,
        outlook: Outlook,
        learned: Mapping[UUID, Learned],
        pipeline: UUID | None,
        into: Converter,
        timing: str,
        by: str,
    ) -> None:
        currency = into.currency
        found = self.models.ask(
            funnel.forecast,
            moment,
            pipeline_id=pipeline,
            currency=currency,
            timezone=ZONE,
            timing=Timing(timing),
            months=MONTHS,
            by=MonthsBy(by),
            convert=bool(into.quotes),
            fits=self.fits,
        )
        what = f"forecast of {pipeline} in {into}, {timing}, {by}"
        if found is None:
            self.same(what, moment, outlook.knows(PIPELINES[0]), False)
            return
        deals = truth.open_deals(pipeline, into)
        months = found.outlook.months
        ends = [(month.end - moment.as_of.astimezone(ZONE).date()).days for month in months]
        if timing == "learned":
            expected = Expected(MONTHS)
            for deal in deals:
                chances = _learned(learned[deal.pipeline], deal, moment.as_of, ends)
                self.tell("learned chances", chances)
                expected.add(
                    Fraction(deal.amount) * (into.factor(deal.currency) or 0),
                    chances or outlook.by_definition(deal, "aged", by, moment.as_of, MONTHS),
                )
        else:
            expected = outlook.forecast(deals, into, timing, by, moment.as_of, MONTHS)
        # Sums of floats may be off by the last digit; exact ones are the same.
        slack = float(sum(deal.amount for deal in deals)) * 1e-9
        for place, month in enumerate(months):
            won = truth.won_deals(pipeline, into, month.start, month.end)
            closed = sum(
                (Fraction(deal.won_amount or 0) * (into.factor(deal.currency) or 0)
                 for deal in won), Fraction(0),
            )  # fmt: skip
            sums, where = month.sums, f"month {month.month}: {what}"
            self.same(f"closed, {where}", moment, sums.closed, rounded(closed, currency))
            self.tell("closed", sums.closed)
            shown = (sums.expected, sums.commit, sums.best_case)
            exact = (expected.mean[place], expected.commit[place], expected.best_case[place])
            if timing == "learned":
                for one, figure in zip(shown, exact, strict=True):
                    self.near(where, moment, one, rounded(figure, currency), slack)
            else:
                self.same(where, moment, shown, tuple(rounded(one, currency) for one in exact))
            self.near(f"sd, {where}", moment, sums.sd, root(expected.variance[place], currency),
                      slack * 1e3 if timing == "learned" else 0)  # fmt: skip
            self.tell(f"forecast {timing}", sums.expected)
        total = found.outlook.total
        summed = sum(month.sums.expected for month in months)
        self.same(f"total: {what}", moment, total.expected, summed)
        self.near(f"sd: {what}", moment, total.sd, root(expected.spread, currency),
                  slack * 1e3 if timing == "learned" else 0)  # fmt: skip
        beyond = rounded(expected.mean[MONTHS], currency)
        if timing == "learned":
            self.near(f"beyond: {what}", moment, found.outlook.beyond, beyond, slack)
            samples = {one.pipeline_id: (one.ended, one.used) for one in found.samples}
            asked = {deal.pipeline for deal in truth.of(pipeline, "open")} | {pipeline} - {None}
            ended = {one: (learned[one].ended, learned[one].ended > 0) for one in asked if one}
            self.same(f"samples: {what}", moment, samples, ended)
        else:
            self.same(f"beyond: {what}", moment, found.outlook.beyond, beyond)
        self.same(f"deals: {what}", moment, found.outlook.deals, len(deals))
        used = {deal.currency for deal in deals} | {
            deal.currency
            for deal in truth.won_deals(pipeline, into, months[0].start, months[-1].end)
        }
        self.same(f"rates: {what}", moment, _quotes(found.rates), into.used(used))
        self.tell("converted forecast", into.used(used))


def _learned(model: Learned, deal: Deal, as_of: datetime, ends: Sequence[int]) -> list[Fraction]:
    """By month, and what falls later; nothing where the definition counts."""
    if not model.ended or not model.knows(deal.stage):
        return []
    age = (as_of - deal.entered_at).days
    ever = model.ever(deal.stage, age)
    within = [min(model.within(deal.stage, age, days), ever) for days in ends]
    return [
        Fraction(after - before)
        for before, after in zip([0.0, *within], [*within, ever], strict=True)
    ]


def _rates(into: Converter) -> dict[str, Rate]:
    return {other: Rate(*quote) for other, quote in into.quotes.items()}


def _quotes(rates: Sequence[Rate]) -> list[Quote]:
    return [(one.from_currency, one.to_currency, one.rate, one.on) for one in rates]


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
