"""The slow oracle: what the raw events of a log say at two times, in plain Python.

Nothing of the read models is used: each answer is made anew from the events that had happened by
`as_of` and were recorded by `known_at`, in the order of time, equal instants by position.
"""

from __future__ import annotations

import calendar
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from fractions import Fraction
from typing import Any
from uuid import UUID

from domain.campaign import Campaign
from domain.customer import Customer
from domain.opportunity import Opportunity
from domain.pipeline import Pipeline
from domain.values import Stage, minor_units
from infra.eventstore.feed import Recorded
from tests.integration.projections.oracle.rates import Converter

LOOK_BACK = timedelta(days=90)
HALF_LIFE = timedelta(days=7)
DAYS_A_MONTH = Fraction(1461, 48)
"""Of an age: 365.25 ÷ 12."""
RULE_MODELS = ("first", "last", "linear", "u", "w", "full_path", "time_decay")
CLASSIFICATIONS = ("type", "path", "identification", "level")


@dataclass
class Deal:
    customer: UUID
    pipeline: UUID
    revision: int
    stage: str
    entered_at: datetime
    opened_at: datetime
    amount: Decimal
    currency: str
    owner: str | None
    status: str = "open"
    won_amount: Decimal | None = None
    signed_on: date | None = None
    chance: Decimal | None = None


@dataclass(frozen=True)
class Touch:
    at: datetime
    position: int
    campaign: UUID


@dataclass(frozen=True)
class Win:
    deal: UUID
    customer: UUID
    at: datetime
    on: date
    amount: Decimal
    currency: str


@dataclass
class Stand:
    """Of one customer, after all its events so far."""

    values: dict[str, str] = field(
        default_factory=lambda: {"type": "prospect", "path": "prospect", "level": "none"}
    )
    identified: bool = False
    delivered: bool = False
    purchases: int = 0
    lead: int | None = None
    """Position of the response that made a responder of it."""
    history: list[tuple[datetime, dict[str, str]]] = field(default_factory=list)
    """What it was from an instant on, the last event of the instant having happened."""
    steps: list[tuple[datetime, dict[str, str], str | None]] = field(default_factory=list)
    """The same event by event, with the cause of a loss."""


def visible(events: Sequence[Recorded], as_of: datetime, known_at: int | None) -> list[Recorded]:
    """What had happened and was recorded, in the order of time."""
    recorded = events if known_at is None else events[:known_at]
    seen = [event for event in recorded if event.occurred_at <= as_of]
    return sorted(seen, key=lambda event: (event.occurred_at, event.position))


class Refold:
    """The state of everything, from the visible events of one log."""

    def __init__(self, events: Iterable[Recorded]) -> None:
        self.deals: dict[UUID, Deal] = {}
        self.customers: dict[UUID, Stand] = {}
        self.touches: dict[UUID, list[Touch]] = defaultdict(list)
        self.wins: list[Win] = []
        self.costs: dict[UUID, tuple[Decimal, str]] = {}
        """What each campaign cost so far, in the currency of its budget."""
        self._won: set[UUID] = set()
        for event in events:
            self._standing(event)
            self._deal(event)
            if isinstance(event.event, Campaign.Created):
                self.costs[event.stream_id] = Decimal(0), event.event.budget.currency
            elif isinstance(event.event, Campaign.CostBooked) and event.stream_id in self.costs:
                cost, currency = self.costs[event.stream_id]
                self.costs[event.stream_id] = cost + event.event.amount.value, currency

    # Deals (E): one outcome each; what comes after it in time changes nothing any more.

    def _deal(self, event: Recorded) -> None:
        e, deal = event.event, self.deals.get(event.stream_id)
        if isinstance(e, Opportunity.Created):
            self.deals[event.stream_id] = Deal(
                customer=e.customer_id,
                pipeline=e.pipeline_id,
                revision=e.pipeline_revision,
                stage=e.stage,
                entered_at=event.occurred_at,
                opened_at=event.occurred_at,
                amount=e.amount.value,
                currency=e.amount.currency,
                owner=e.owner,
            )
        if deal is None:
            return
        running = deal.status in ("open", "suspended")
        match e:
            case Opportunity.StageAdvanced() | Opportunity.StageMovedBack() if running:
                deal.stage, deal.revision = e.to_stage, e.pipeline_revision
                deal.entered_at = event.occurred_at
            case Opportunity.AmountChanged():
                deal.amount = e.amount.value
            case Opportunity.Transferred():
                deal.owner = e.to_owner
            case Opportunity.ChanceEstimated():
                deal.chance = e.chance
            case Opportunity.Suspended() if deal.status == "open":
                deal.status = "suspended"
            case Opportunity.Resumed() if deal.status == "suspended":
                deal.status = "open"
            case Opportunity.Terminated() if running:
                deal.status = "terminated"
            case Opportunity.Lost() if running:
                deal.status = "lost"
            case Opportunity.ContractSigned() if running:
                deal.status, deal.won_amount = "won", e.amount.value
                deal.signed_on = e.signed_on

    # Lifecycle (C)

    def _standing(self, event: Recorded) -> None:
        e, customer = event.event, event.partition_key
        moves = isinstance(
            e,
            (Customer.Created, Customer.CampaignResponded, Customer.OrderPlaced, Customer.Churned,
             Customer.LevelChanged, Customer.WonBack, Customer.Delivered, Opportunity.Created,
             Opportunity.ContractSigned),
        )  # fmt: skip
        identifies = isinstance(e, Customer.ProfileChanged) and e.identified is not None
        if not (moves or identifies):
            return
        one = self.customers.setdefault(customer, Stand())
        now = one.values
        match e:
            case Customer.Created() | Customer.ProfileChanged():
                one.identified = one.identified or bool(e.identified)
            case Customer.CampaignResponded():
                if now["type"] == "prospect":
                    now["type"] = "responder"
                    one.lead = event.position
                self._touch(event, customer, e.campaign_id)
            case Customer.OrderPlaced():
                self._bought(one)
            case Customer.Delivered():
                one.delivered = True
            case Customer.Churned():
                now |= {"type": "lost", "level": "none"}
            case Customer.WonBack():
                if now["type"] == "lost":
                    now |= {"type": "relationship", "level": "new"}
            case Customer.LevelChanged():
                if now["type"] == "relationship":
                    now["level"] = e.level.value
            case Opportunity.Created():
                if now["path"] == "prospect":
                    now["path"] = "opportunity"
                if e.campaign_id is not None:
                    self._touch(event, customer, e.campaign_id)
            case Opportunity.ContractSigned() if event.stream_id not in self._won:
                self._won.add(event.stream_id)
                self._bought(one)
                win = Win(
                    event.stream_id, customer, event.occurred_at, e.signed_on, e.amount.value,
                    e.amount.currency,
                )  # fmt: skip
                self.wins.append(win)
        now["identification"] = "to_be_identified"
        if one.identified:
            now["identification"] = {
                "prospect": "prospect", "opportunity": "sales_opportunity",
            }.get(now["path"], "order")  # fmt: skip
            if one.delivered:
                now["identification"] = "user"
        cause = e.cause.value if isinstance(e, Customer.Churned) else None
        one.steps.append((event.occurred_at, dict(now), cause))
        if one.history and one.history[-1][0] == event.occurred_at:
            one.history.pop()
        one.history.append((event.occurred_at, dict(now)))

    @staticmethod
    def _bought(one: Stand) -> None:
        one.purchases += 1
        one.values["path"] = "order" if one.purchases == 1 else "repeat"
        if one.values["type"] != "relationship":
            one.values |= {"type": "relationship", "level": "new"}

    def _touch(self, event: Recorded, customer: UUID, campaign: UUID) -> None:
        self.touches[customer].append(Touch(event.occurred_at, event.position, campaign))

    def distribution(self, classification: str) -> Counter[str]:
        return Counter(one.values[classification] for one in self.customers.values())

    def moves(
        self, classification: str, start: datetime, end: datetime
    ) -> Counter[tuple[str, str]]:
        """From value to value in [start, end); not what is left and entered at one instant."""
        found: Counter[tuple[str, str]] = Counter()
        for one in self.customers.values():
            for (_, before), (at, after) in zip(one.history, one.history[1:], strict=False):
                pair = before[classification], after[classification]
                if start <= at < end and pair[0] != pair[1]:
                    found[pair] += 1
        return found

    # Funnel and forecast (A)

    def of(self, pipeline: UUID | None, *statuses: str) -> list[Deal]:
        """Deals of the pipeline, or of all, in these statuses."""
        return [
            deal
            for deal in self.deals.values()
            if deal.status in statuses and pipeline in (None, deal.pipeline)
        ]

    def open_deals(self, pipeline: UUID | None, into: Converter) -> list[Deal]:
        """Those in the currency, or one that is converted into it."""
        opened = self.of(pipeline, "open")
        return [deal for deal in opened if into.factor(deal.currency) is not None]

    def won_deals(
        self, pipeline: UUID | None, into: Converter, start: date, end: date
    ) -> list[Deal]:
        """Those signed in [start, end)."""
        return [
            deal
            for deal in self.of(pipeline, "won")
            if into.factor(deal.currency) is not None
            and deal.signed_on is not None
            and start <= deal.signed_on < end
        ]

    # Attribution (D)

    def revenue(self, start: date, end: date) -> dict[str, tuple[int, Decimal]]:
        """Deals won in [start, end) and their amounts, by currency."""
        found: dict[str, tuple[int, Decimal]] = {}
        for win in self.wins:
            if start <= win.on < end:
                count, amount = found.get(win.currency, (0, Decimal(0)))
                found[win.currency] = count + 1, amount + win.amount
        return found

    def credits(
        self, model: str, currency: str, start: date, end: date
    ) -> tuple[dict[UUID, Decimal], Decimal]:
        """By campaign, and what is unattributed."""
        earned: dict[UUID, Decimal] = defaultdict(Decimal)
        unattributed = Decimal(0)
        for win in self.wins:
            if win.currency != currency or not start <= win.on < end:
                continue
            path = [t for t in self.touches[win.customer] if win.at - LOOK_BACK < t.at <= win.at]
            if not path:
                unattributed += win.amount
                continue
            lead = self.customers[win.customer].lead
            weights = weighed(model, path, lead, self.deals[win.deal].opened_at)
            for touch, share in zip(path, split(win.amount, currency, weights), strict=True):
                earned[touch.campaign] += share
        return dict(earned), unattributed

    def converted(
        self, model: str, into: Converter, start: date, end: date
    ) -> tuple[dict[UUID, Decimal], Decimal]:
        """The same of all currencies that there is a rate of: revenue and what is unattributed are
        converted and rounded as sums, and the campaigns share what is left; of equal remainders
        that of the lower id comes first."""
        exact: dict[UUID, Fraction] = defaultdict(Fraction)
        alone = Fraction(0)
        for currency in sorted({win.currency for win in self.wins}):
            factor = into.factor(currency)
            if factor is None:
                continue
            earned, unattributed = self.credits(model, currency, start, end)
            alone += Fraction(unattributed) * factor
            for campaign, credit in earned.items():
                exact[campaign] += Fraction(credit) * factor
        target = into.currency
        rest = rounded(alone + sum(exact.values()), target) - rounded(alone, target)
        campaigns = sorted(exact)
        weights = [exact[campaign] for campaign in campaigns]
        if not sum(weights):
            return dict.fromkeys(campaigns, Decimal(0)), rounded(alone, target)
        shares = split(rest, target, weights)
        return dict(zip(campaigns, shares, strict=True)), rounded(alone, target)


def weighed(
    model: str, path: Sequence[Touch], lead: int | None, opened_at: datetime
) -> list[Fraction]:
    """The weight of each touch of a path under a rule model, by the definitions of section D."""
    last = len(path) - 1
    leads = [i for i, touch in enumerate(path) if touch.position == lead]
    before = [i for i, touch in enumerate(path) if touch.at <= opened_at]
    anchors: dict[str, list[int]] = {
        "first": [0], "lead": leads, "opportunity": before[-1:], "close": [last],
    }  # fmt: skip
    match model:
        case "first":
            return [Fraction(i == 0) for i in range(last + 1)]
        case "last":
            return [Fraction(i == last) for i in range(last + 1)]
        case "linear":
            return [Fraction(1)] * (last + 1)
        case "time_decay":
            return [halved((path[-1].at - touch.at) / HALF_LIFE) for touch in path]
        case "u":
            shares, middle = {"first": Fraction(40), "close": Fraction(40)}, Fraction(20)
        case "w":
            shares = dict.fromkeys(("first", "lead", "opportunity"), Fraction(30))
            middle = Fraction(10)
        case "full_path":
            shares = dict.fromkeys(anchors, Fraction(45, 2))
            middle = Fraction(10)
    weights = [Fraction(0)] * (last + 1)
    taken = set()
    for anchor, share in shares.items():
        for place in anchors[anchor]:
            weights[place] += share
            taken.add(place)
    between = [place for place in range(last + 1) if place not in taken]
    for place in between:
        weights[place] = middle / len(between)
    return weights


def halved(times: float) -> Fraction:
    """2^-times, with far more digits than an amount has. Half days of a week are exact in it."""
    with localcontext(Context(prec=60)):
        return Fraction(Decimal(2) ** -(Decimal(round(times * 14)) / 14))


def split(amount: Decimal, currency: str, weights: Sequence[Fraction]) -> list[Decimal]:
    """Exact, to the minor unit: the largest remainder gets what is left, the earlier first."""
    decimals = minor_units(currency)
    units, total = int(amount.scaleb(decimals)), sum(weights)
    exact = [units * weight / total for weight in weights]
    parts = [int(part) for part in exact]
    order = sorted(range(len(parts)), key=lambda i: (parts[i] - exact[i], i))
    for i in order[: units - sum(parts)]:
        parts[i] += 1
    return [Decimal(part).scaleb(-decimals) for part in parts]


class Outlook:
    """The stages of pipelines by revision: what a deal in a stage brings, and when."""

    def __init__(self, events: Iterable[Recorded]) -> None:
        self._stages: dict[tuple[UUID, int], tuple[Stage, ...]] = {}
        for event in events:
            if isinstance(event.event, Pipeline.Created):
                self._stages[event.stream_id, 1] = event.event.stages
            elif isinstance(event.event, Pipeline.Revised):
                self._stages[event.stream_id, event.event.revision] = event.event.stages

    def chance(self, deal: Deal) -> Fraction:
        """The product of the chances from the deal's stage on."""
        chance = Fraction(1)
        for stage in self._from(deal):
            chance *= Fraction(stage.chance_to_next)
        return chance

    def knows(self, pipeline: UUID) -> bool:
        return (pipeline, 1) in self._stages

    def _from(self, deal: Deal) -> tuple[Stage, ...]:
        stages = self._stages[deal.pipeline, deal.revision]
        place = [stage.name for stage in stages].index(deal.stage)
        return stages[place:]

    def months(self, deal: Deal, timing: str, as_of: datetime) -> Fraction:
        """What the deal still takes."""
        age = (as_of - deal.entered_at).days / DAYS_A_MONTH
        here, *later = self._from(deal)
        usual = Fraction(here.duration_months)
        left = {
            "half_elapsed": usual / 2,
            "full_duration": usual,
            "aged": max(usual - age, Fraction(0)),
        }[timing]
        return left + sum(Fraction(stage.duration_months) for stage in later)

    def funnel(
        self, deals: Iterable[Deal], into: Converter
    ) -> dict[str, tuple[int, Decimal, Decimal]]:
        """By stage: open deals, their amount, the same weighted by the chance to win."""
        counts: Counter[str] = Counter()
        amounts: dict[str, Fraction] = defaultdict(Fraction)
        weighted: dict[str, Fraction] = defaultdict(Fraction)
        for deal in deals:
            counts[deal.stage] += 1
            amount = Fraction(deal.amount) * (into.factor(deal.currency) or 0)
            amounts[deal.stage] += amount
            weighted[deal.stage] += amount * self.chance(deal)
        return {
            stage: (
                count,
                rounded(amounts[stage], into.currency),
                rounded(weighted[stage], into.currency),
            )
            for stage, count in counts.items()
        }

    def sums(self, deals: Sequence[Deal], into: Converter) -> tuple[int, Decimal, Decimal]:
        """The same over all stages, rounded once."""
        amounts = [Fraction(deal.amount) * (into.factor(deal.currency) or 0) for deal in deals]
        weighted = sum(
            (amount * self.chance(deal) for amount, deal in zip(amounts, deals, strict=True)),
            Fraction(0),
        )
        whole = rounded(sum(amounts, Fraction(0)), into.currency)
        return len(deals), whole, rounded(weighted, into.currency)

    def forecast(
        self,
        deals: Iterable[Deal],
        into: Converter,
        timing: str,
        by: str,
        as_of: datetime,
        months: int,
    ) -> Expected:
        found = Expected(months)
        for deal in deals:
            amount = Fraction(deal.amount) * (into.factor(deal.currency) or 0)
            found.add(amount, self.by_definition(deal, timing, by, as_of, months))
        return found

    def by_definition(
        self, deal: Deal, timing: str, by: str, as_of: datetime, months: int
    ) -> list[Fraction]:
        """The chances to be won in each month; what falls later comes last."""
        left = self.months(deal, timing, as_of)
        month = relative_month(left) if by == "relative" else calendar_month(left, as_of.date())
        chances = [Fraction(0)] * (months + 1)
        chances[min(month, months + 1) - 1] = self.chance(deal)
        return chances


class Expected:
    """By month, 1, 2, …; what falls later in the place after them. `spread`: the variance over the
    months."""

    def __init__(self, months: int) -> None:
        self.mean, self.variance, self.commit, self.best_case = (
            [Fraction(0)] * (months + 1) for _ in range(4)
        )
        self.spread = Fraction(0)

    def add(self, amount: Fraction, chances: Sequence[Fraction]) -> None:
        """Deals are independent: one of amount a and chance p gives a·p and a²·p·(1 − p)."""
        ever, within = sum(chances), sum(chances[:-1])
        self.spread += amount * amount * within * (1 - within)
        for place, chance in enumerate(chances):
            self.mean[place] += amount * chance
            self.variance[place] += amount * amount * chance * (1 - chance)
            if ever >= Fraction(4, 5):
                self.commit[place] += amount * chance
            elif ever >= Fraction(1, 2):
                self.best_case[place] += amount * chance


def relative_month(left: Fraction) -> int:
    """⌈remaining months⌉, at least 1."""
    return max(1, math.ceil(left))


def calendar_month(left: Fraction, today: date) -> int:
    """That of the calendar in which the day lies that is so many months on, 1 being today's; a
    fraction of a month counts 30 days to the unit."""
    whole = math.floor(left)
    year, month = divmod(today.year * 12 + today.month - 1 + whole, 12)
    day = min(today.day, calendar.monthrange(year, month + 1)[1])
    then = date(year, month + 1, day) + timedelta(days=math.floor((left - whole) * 30))
    return (then.year - today.year) * 12 + then.month - today.month + 1


def rounded(value: Fraction, currency: str) -> Decimal:
    """To the minor unit, halves to the even one."""
    units = round(value * 10 ** minor_units(currency))
    return Decimal(units).scaleb(-minor_units(currency))


def root(value: Fraction, currency: str) -> Decimal:
    """The square root, to the minor unit."""
    with localcontext(Context(prec=60)):
        exact = (Decimal(value.numerator) / Decimal(value.denominator)).sqrt()
        return exact.quantize(Decimal(1).scaleb(-minor_units(currency)), ROUND_HALF_EVEN)


def state_of(deal: Deal) -> dict[str, Any]:
    """What a list of deals shows of it."""
    return {
        "stage": deal.stage,
        "revision": deal.revision,
        "entered_at": deal.entered_at,
        "opened_at": deal.opened_at,
        "status": deal.status,
        "amount": deal.amount,
        "currency": deal.currency,
        "owner": deal.owner,
        "won_amount": deal.won_amount,
        "signed_on": deal.signed_on,
        "chance": deal.chance,
    }
