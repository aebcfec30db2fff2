"""What customers bought, and what that says of their worth, from the raw events."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
from scipy.optimize import minimize
from scipy.special import gammaln

from domain.customer import Customer
from domain.opportunity import Opportunity
from infra.eventstore.feed import Recorded
from projections.lifecycle.value.worth import Horizon, Valuation, Valuations, repeat_type, worths
from projections.reading import Moment
from tests.integration.projections.oracle.comparing import Comparer

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

HORIZON = Horizon(12, 0.1, 52)
BOUNDS = [(-12.0, 12.0), (-12.0, 12.0), (-7.0, 7.0), (-7.0, 7.0)]
"""Of the logarithms of r, alpha, a, b: the product looks for them there, so a fit does here."""
SLACK = 1e-3
"""By so much a log-likelihood may be below that of a fresh fit."""
WEIGHTS = (0.35, 0.35, 0.15, 0.15)


@dataclass(frozen=True)
class Purchase:
    customer: UUID
    at: datetime
    on: date
    amount: Decimal
    cost: Decimal | None
    currency: str


def purchases(events: Iterable[Recorded]) -> list[Purchase]:
    """Of events in the order of time: orders, and the first contract of each deal."""
    found, signed = [], set()
    for event in events:
        e = event.event
        if isinstance(e, Customer.OrderPlaced):
            on = event.occurred_at.date()
        elif isinstance(e, Opportunity.ContractSigned) and event.stream_id not in signed:
            signed.add(event.stream_id)
            on = e.signed_on
        else:
            continue
        cost = None if e.cost is None else e.cost.value
        found.append(
            Purchase(
                event.partition_key, event.occurred_at, on, e.amount.value, cost,
                e.amount.currency,
            )
        )  # fmt: skip
    return found


def repeat_types(events: Iterable[Recorded]) -> dict[UUID, str]:
    found: dict[UUID, str] = {}
    for event in events:
        if isinstance(event.event, Customer.DemandDescribed):
            found.pop(event.stream_id, None)
            if event.event.repeat_type is not None:
                found[event.stream_id] = event.event.repeat_type.value
    return found


@dataclass
class Buyer:
    """`days`: what was bought on each, all purchases of a day being one."""

    days: dict[date, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    cost: Decimal = Decimal(0)
    costed: Decimal = Decimal(0)

    @property
    def amount(self) -> Decimal:
        return sum(self.days.values(), Decimal(0))

    @property
    def x(self) -> int:
        return len(self.days) - 1

    @property
    def recency(self) -> int:
        return (max(self.days) - min(self.days)).days

    @property
    def again(self) -> Decimal:
        return self.amount - self.days[min(self.days)]

    @property
    def share(self) -> float | None:
        """Of our cost; approximate, as money is here."""
        return float(self.cost) / float(self.costed) if self.costed > 0 else None

    def age(self, today: date) -> int:
        return (today - min(self.days)).days


def buyers(bought: Iterable[Purchase], currency: str, today: date) -> dict[UUID, Buyer]:
    found: dict[UUID, Buyer] = defaultdict(Buyer)
    for one in bought:
        if one.currency != currency:
            continue
        buyer = found[one.customer]
        buyer.days[min(one.on, today)] += one.amount
        if one.cost is not None:
            buyer.cost += one.cost
            buyer.costed += one.amount
    return dict(found)


def fifth(figure: float, among: Sequence[float]) -> int:
    """1 to 5: by the middle of the places that this figure and its equals take."""
    below = sum(one < figure for one in among)
    equal = sum(one == figure for one in among)
    place = (2 * below + equal) * 5  # of 2 · len(among)
    return min(5, max(1, -(-place // (2 * len(among)))))


# ---- likelihoods, as published ----


def buying(logs: Any, x: Any, t_x: Any, age: Any) -> float:
    """Of all customers, by the published (6) of Fader, Hardie and Lee (2005)."""
    r, alpha, a, b = np.exp(logs)
    a1 = gammaln(r + x) - gammaln(r) + r * np.log(alpha)
    a2 = gammaln(a + b) + gammaln(b + x) - gammaln(b) - gammaln(a + b + x)
    a3 = -(r + x) * np.log(alpha + age)
    again = np.maximum(x, 1)
    a4 = np.log(a) - np.log(b + again - 1) - (r + x) * np.log(alpha + t_x)
    return float(np.sum(a1 + a2 + np.where(x > 0, np.logaddexp(a3, a4), a3)))


def spending(logs: Any, x: Any, mean: Any) -> float:
    """By the published (1a) of Fader and Hardie (2013)."""
    p, q, gamma = np.exp(logs)
    return float(
        np.sum(
            gammaln(p * x + q) - gammaln(p * x) - gammaln(q) + q * np.log(gamma)
            + (p * x - 1) * np.log(mean) + p * x * np.log(x)
            - (p * x + q) * np.log(gamma + x * mean)
        )
    )  # fmt: skip


def best(likelihood: Any, starts: Iterable[Sequence[float]], bounds: Any, *data: Any) -> float:
    """The greatest log-likelihood that is found from these starts, by finite differences."""
    found = [
        minimize(lambda logs: -likelihood(logs, *data), start, method="L-BFGS-B", bounds=bounds)
        for start in starts
    ]
    return -min(one.fun for one in found if math.isfinite(one.fun))


# ---- questions ----

VALUATIONS = Valuations()


def ask(
    asker: Comparer, moment: Moment, events: Sequence[Recorded], zone: ZoneInfo, currency: str
) -> None:
    today = moment.as_of.astimezone(zone).date()
    bought = purchases(events)
    own = buyers(bought, currency, today)
    repeats = repeat_types(events)
    found: Valuation = asker.models.ask(
        VALUATIONS.valuation, moment, currency=currency, timezone=zone, horizon=HORIZON
    )
    what = f"value in {currency}"
    ids = [UUID(bytes=bytes(one).ljust(16, b"\0")) for one in found.of.id]
    asker.same(f"buyers: {what}", moment, ids, sorted(own))
    others: dict[str, tuple[int, Decimal]] = {}
    for one in bought:
        if one.currency != currency:
            count, amount = others.get(one.currency, (0, Decimal(0)))
            others[one.currency] = count + 1, amount + one.amount
    beside = {one.currency: (one.count, one.amount) for one in found.of.other_currencies}
    asker.same(f"other currencies: {what}", moment, beside, others)
    asker.tell("value in other currencies", others)
    _statistics(asker, moment, found, own, ids, today)
    _table(asker, moment, found, own, ids, today, repeats)
    _models(asker, moment, found, own, today)


def _statistics(
    asker: Comparer,
    moment: Moment,
    found: Valuation,
    own: dict[UUID, Buyer],
    ids: list[UUID],
    today: date,
) -> None:
    """x, t_x and T by which BG/NBD is fitted, and what lifetime value takes: exactly."""
    of, grouped = found.of, found.grouped
    weights: dict[tuple[float, ...], int] = defaultdict(int)
    for row, id_ in enumerate(ids):
        one = own[id_]
        days = one.x, one.recency, one.age(today)
        money = tuple(float(each) for each in (one.amount, one.again, one.cost, one.costed))
        shown = (of.x[row], of.recency[row], of.age[row])
        paid = (of.amount[row], of.again[row], of.cost[row], of.costed[row])
        asker.same(f"history of {id_}", moment, (*shown, *paid), (*days, *money))
        group = grouped.of[row]
        model = (grouped.buyers.x[group], grouped.buyers.t_x[group], grouped.buyers.T[group])
        expected = (one.x, one.recency / 7, one.age(today) / 7)
        for a_figure, another in zip(model, expected, strict=True):
            asker.close(f"model's history of {id_}", moment, float(a_figure), another)
        weights[group] += 1
        asker.tell("buyers", True)
        asker.tell("buyers who bought again", one.x)
        asker.tell("buyers of known cost", one.share)
    asker.same("groups of buyers", moment, list(grouped.buyers.n),
               [weights[group] for group in range(len(grouped.buyers.n))])  # fmt: skip
    repeaters = sum(one.x > 0 for one in own.values())
    asker.same("repeaters", moment, found.repeaters, repeaters)


def _table(
    asker: Comparer,
    moment: Moment,
    found: Valuation,
    own: dict[UUID, Buyer],
    ids: list[UUID],
    today: date,
    repeats: dict[UUID, str],
) -> None:
    """Recency, frequency, amount, cost, and what is said of each customer by the models."""
    kept = asker.models.ask(repeat_type, moment, ids)
    asker.same("repeat types", moment, kept, {id_: repeats[id_] for id_ in ids if id_ in repeats})
    rows = asker.models.ask(lambda _: worths(found, np.arange(len(ids)), kept))
    late = [-float((today - max(one.days)).days) for one in own.values()]
    often = [float(one.x) for one in own.values()]
    paid = [float(one.amount) for one in own.values()]
    dear = [-one.share for one in own.values() if one.share is not None]
    costed = sum(float(one.costed) for one in own.values())
    common = sum(float(one.cost) for one in own.values()) / costed if costed > 0 else 0.0
    for row in rows:
        one, id_ = own[row.customer_id], row.customer_id
        share = one.share
        scores = [
            fifth(-float((today - max(one.days)).days), late), fifth(float(one.x), often),
            fifth(float(one.amount), paid), None if share is None else fifth(-share, dear),
        ]  # fmt: skip
        shown = [row.recency_score, row.frequency_score, row.amount_score, row.cost_score]
        asker.same(f"scores of {id_}", moment, shown, scores)
        whole = sum(weight * (3 if score is None else score)
                    for weight, score in zip(WEIGHTS, scores, strict=True))  # fmt: skip
        asker.close(f"score of {id_}", moment, row.score, whole)
        days = (row.purchase_days, row.first_on, row.last_on)
        asker.same(f"days of {id_}", moment, days, (len(one.days), min(one.days), max(one.days)))
        asker.close(f"cost share of {id_}", moment, row.cost_share, share)
        margin = 1 - (common if share is None else share)
        asker.close(f"margin of {id_}", moment, row.margin, margin)
        asker.tell("scores", True)
        if found.buying is None:
            said = (row.alive, row.expected_purchases, row.mean_value, row.lifetime_value)
            asker.same(f"no model: {id_}", moment, said, (None,) * 4)
            continue
        _worth(asker, moment, found, one, row, today, repeats.get(id_) == "project")


def _worth(
    asker: Comparer,
    moment: Moment,
    found: Valuation,
    one: Buyer,
    row: Any,
    today: date,
    project: bool,
) -> None:
    """By the product's parameters and the published formulas."""
    fit, spends = found.buying, found.spending
    assert fit is not None
    alive, weeks, x = 1.0, one.age(today) / 7, one.x
    if x:
        odds = (fit.a / (fit.b + x - 1)) * math.exp(
            (fit.r + x) * math.log((fit.alpha + weeks) / (fit.alpha + one.recency / 7))
        )
        alive = 1 / (1 + odds)
    asker.close(f"alive: {row.customer_id}", moment, row.alive, alive)
    asker.tell("customers that may be gone", alive < 1)
    if project:
        asker.same(f"one-off: {row.customer_id}", moment,
                   (row.expected_purchases, row.next_purchase_on), (0.0, None))  # fmt: skip
        asker.tell("one-off customers", True)
    if spends is None:
        return
    below = spends.p * x + spends.q - 1
    if below > 0:
        mean = spends.p * (spends.gamma + float(one.again)) / below
        if mean < 1e24:
            asker.close(f"mean value: {row.customer_id}", moment, row.mean_value, mean)
            asker.tell("mean values", mean)
            if project:
                asker.same("lifetime value of one-off", moment, row.lifetime_value, 0.0)


def _models(
    asker: Comparer, moment: Moment, found: Valuation, own: dict[UUID, Buyer], today: date
) -> None:
    """The parameters are as likely as those of a fresh fit to the raw events."""
    repeaters = sum(one.x > 0 for one in own.values())
    enough = len(own) >= 30 and repeaters >= 10
    if not enough:
        asker.same("no model", moment, (found.buying, found.reason is None), (None, False))
        return
    x = np.array([one.x for one in own.values()], float)
    t_x = np.array([one.recency for one in own.values()]) / 7
    age = np.array([one.age(today) for one in own.values()]) / 7
    if found.buying is not None:
        fit = found.buying
        reached = buying(np.log([fit.r, fit.alpha, fit.a, fit.b]), x, t_x, age)
        asker.close("likelihood of buying", moment, fit.log_likelihood, reached)
        starts = [np.log([r, r * age.mean() / max(x.mean(), 0.01), a, b])
                  for r, a, b in ((1.0, 1.0, 1.0), (0.3, 0.5, 3.0))]  # fmt: skip
        fresh = best(buying, starts, BOUNDS, x, t_x, age)
        assert reached >= fresh - SLACK, f"buying at {moment}: {reached} is below {fresh}"
        asker.questions += 1
        asker.tell("models of buying", True)
    again = [one for one in own.values() if one.x and one.again > 0]
    if found.spending is not None:
        x = np.array([one.x for one in again], float)
        mean = np.array([float(one.again) / one.x for one in again])
        spent = found.spending
        reached = spending(np.log([spent.p, spent.q, spent.gamma]), x, mean)
        asker.close("likelihood of spending", moment, spent.log_likelihood, reached)
        scale = mean.mean()
        starts = [np.log([p, q, scale * max(q - 1, 0.5) / p])
                  for p, q in ((1.0, 1.5), (3.0, 3.0))]  # fmt: skip
        limits = [(-14.0, 14.0)] * 2 + [(-14.0 + math.log(scale), 14.0 + math.log(scale))]
        fresh = best(spending, starts, limits, x, mean)
        assert reached >= fresh - SLACK, f"spending at {moment}: {reached} is below {fresh}"
        asker.questions += 1
        asker.tell("models of spending", True)
    asker.same("models", moment, found.reason is None,
               found.buying is not None and found.spending is not None)  # fmt: skip
