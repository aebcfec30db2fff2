"""What customers are worth: scores by what they did, and models of what they will do.

Lifetime value (R75) = the sum over the months of the horizon of
    purchases expected in the month × mean value of a purchase × margin ÷ (1 + d) ^ (month ÷ 12)
with BG/NBD for the purchases, Gamma-Gamma for their value, margin = 1 − the customer's share of
cost in what it paid (that of all customers where its own is not known) and d the yearly discount.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from projections.kept import Kept
from projections.lifecycle.value import buying, spending
from projections.lifecycle.value.buying import Buyers, BuyingModel, Floats
from projections.lifecycle.value.histories import Groups, Histories, groups, histories, spenders
from projections.lifecycle.value.spending import SpendingModel
from projections.reading import Connection, Moment, fetch, fetch_one, truth

LEAST_BUYERS = 30
LEAST_REPEATERS = 10
"""With fewer customers, or fewer of them who bought again, no model is fitted."""

WEEKS_PER_MONTH = 365.25 / 7 / 12
LONGEST_WEEKS = 260.0
"""A next purchase that is not expected within five years has no date."""

_BEYOND = 1e24


@dataclass(frozen=True, slots=True)
class Horizon:
    """Lifetime value is reckoned over `months`, expected purchases within `weeks`."""

    months: int
    yearly_discount: float
    weeks: int


@dataclass(frozen=True, slots=True)
class Worth:
    """One customer. Days are whole; money is approximate, in the currency asked for.

    The scores are 1 to 5, by fifths of all buyers (5: the best): `recency_score` of days since
    the last purchase, `frequency_score` of days with purchases, `amount_score` of what was paid,
    `cost_score` of our cost's share in it, None where that is not known. `score` = 0.35 recency +
    0.35 frequency + 0.15 amount + 0.15 cost (3 where not known): one big old order is below a
    steady buyer. What the models say is None where none could be fitted; of a customer who buys
    once only (`repeat_type` project) nothing more is expected, and there is no next purchase.
    """

    customer_id: UUID
    purchase_days: int
    first_on: date
    last_on: date
    amount: float
    cost_share: float | None
    recency_score: int
    frequency_score: int
    amount_score: int
    cost_score: int | None
    score: float
    repeat_type: str | None
    alive: float | None
    expected_purchases: float | None
    mean_value: float | None
    lifetime_value: float | None
    next_purchase_on: date | None
    margin: float


@dataclass(frozen=True, slots=True)
class Valuation:
    """All buyers at a moment, with the models fitted to them. `reason` tells why there is none."""

    of: Histories
    buying: BuyingModel | None
    spending: SpendingModel | None
    reason: str | None
    repeaters: int
    cost_share: float | None
    grouped: Groups
    scores: NDArray[Any]
    """Columns recency, frequency, amount, cost (0: not known), and the whole."""
    alive: Floats
    expected: Floats
    """Purchases within the horizon's weeks."""
    values: Floats
    """Mean value of a purchase to come."""
    lifetime: Floats
    horizon: Horizon

    def ranking(self, by: str) -> NDArray[Any]:
        """Rows by this figure, the highest first, those without one last; equal ones by id."""
        figures = {
            "lifetime_value": self.lifetime,
            "expected_purchases": self.expected,
            "alive": self.alive,
            "score": self.scores[:, 4],
            "amount": self.of.amount,
        }[by]
        return np.argsort(-np.where(np.isnan(figures), -np.inf, figures), kind="stable")

    def row_of(self, customer_id: UUID) -> int | None:
        """Of a customer; None for one that has bought nothing in this currency."""
        wanted = np.array(customer_id.bytes, dtype=self.of.id.dtype)
        row = int(np.searchsorted(self.of.id, wanted))
        return row if row < len(self.of) and self.of.id[row] == wanted else None


BY = ("lifetime_value", "expected_purchases", "alive", "score", "amount")


class Valuations:
    """Valuations by what they rest on: the state of the read model, the moment, the question."""

    def __init__(self, most: int = 3) -> None:
        self._kept: Kept[Valuation] = Kept(most)  # one of a million customers is 150 MB

    def valuation(
        self,
        connection: Connection,
        moment: Moment,
        *,
        currency: str,
        timezone: ZoneInfo,
        horizon: Horizon,
    ) -> Valuation:
        key = (*_state(connection, moment, timezone), currency, timezone.key, horizon)

        def make() -> Valuation:
            found = histories(connection, moment, currency=currency, timezone=timezone)
            return _valued(found, _one_off(connection, moment), horizon)

        return self._kept.get(key, make)


def _state(connection: Connection, moment: Moment, timezone: ZoneInfo) -> tuple[Hashable, ...]:
    """One filling of the tables, up to the same positions; and the day, by which customers age."""
    state = fetch_one(
        connection,
        """SELECT (SELECT string_agg(filled::text, ' ' ORDER BY projection) FROM origin
                WHERE projection LIKE 'lifecycle/%%') AS filled,
            (SELECT string_agg(position::text, ' ' ORDER BY projection, partition) FROM position
                WHERE projection LIKE 'lifecycle/%%') AS positions,
            (SELECT count(*) FROM parked WHERE projection LIKE 'lifecycle/%%') AS parked""",
        {},
    )
    day = moment.as_of.astimezone(timezone).date() if moment.latest else moment.as_of
    return (*(state or {}).values(), day, moment.known_at)


def _one_off(connection: Connection, moment: Moment) -> list[bytes]:
    """The customers of whom no second purchase is to be expected."""
    rows = fetch(
        connection,
        f"""SELECT customer_id FROM demand_period
            WHERE repeat_type = 'project' AND {truth(moment)}""",
        moment.parameters(),
    )
    return [UUID(str(row["customer_id"])).bytes for row in rows]


def repeat_type(connection: Connection, moment: Moment, customers: list[UUID]) -> dict[UUID, str]:
    """Of those customers whose repeat type is known."""
    rows = fetch(
        connection,
        f"""SELECT customer_id, repeat_type FROM demand_period WHERE repeat_type IS NOT NULL
            AND customer_id = ANY(%(ids)s::uuid[]) AND {truth(moment)}""",
        {**moment.parameters(), "ids": [str(one) for one in customers]},
    )
    return {UUID(str(row["customer_id"])): row["repeat_type"] for row in rows}


def _valued(of: Histories, one_off: list[bytes], horizon: Horizon) -> Valuation:
    repeaters = int((of.x > 0).sum())
    project = np.isin(of.id, np.array(one_off, dtype=of.id.dtype)) if one_off else None
    grouped = groups(of)
    buys = spends = None
    reason: str | None = None
    if len(of) < LEAST_BUYERS or repeaters < LEAST_REPEATERS:
        reason = (
            f"{len(of)} customers bought, {repeaters} of them again: a model takes"
            f" {LEAST_BUYERS} and {LEAST_REPEATERS}"
        )
    else:
        buys = buying.fit(grouped.buyers)
        spends = spending.fit(spenders(of)) if (of.again > 0).sum() >= LEAST_REPEATERS else None
        if buys is None or spends is None:
            reason = "the likelihood has no maximum for what was bought"
    costed = float(of.costed.sum())
    share = float(of.cost.sum()) / costed if costed > 0 else None
    alive, expected, values, lifetime = _modelled(
        of, grouped, buys, spends, share, horizon, project
    )
    return Valuation(
        of, buys, spends, reason, repeaters, share, grouped, _scores(of), alive, expected, values,
        lifetime, horizon,
    )  # fmt: skip


def _modelled(
    of: Histories,
    grouped: Groups,
    buys: BuyingModel | None,
    spends: SpendingModel | None,
    share: float | None,
    horizon: Horizon,
    project: NDArray[Any] | None,
) -> tuple[Floats, Floats, Floats, Floats]:
    """alive, expected, values, lifetime; NaN where there is no model."""
    nothing = np.full(len(of), np.nan)
    if buys is None:
        return nothing, nothing, nothing, nothing
    own = grouped.buyers
    alive = buys.alive(own.x, own.t_x, own.T)[grouped.of]
    expected = buys.expected(float(horizon.weeks), own.x, own.t_x, own.T)[grouped.of]
    discounted = _discounted(buys, own, horizon)[grouped.of]
    if project is not None:
        expected, discounted = np.where(project, 0.0, [expected, discounted])
    if spends is None:
        return alive, expected, nothing, nothing
    values = spends.expected(of.x, of.mean)
    return alive, expected, values, discounted * values * margins(of, share)


def _discounted(buys: BuyingModel, of: Buyers, horizon: Horizon) -> Floats:
    """Purchases within the horizon's months, discounted month by month."""
    # Of very many different histories, quarters stand for their months: within half a per cent.
    step = 1 if len(of.x) <= 20_000 else 3
    before, discounted, since = np.zeros(len(of.x)), np.zeros(len(of.x)), 0
    for end in [*range(step, horizon.months, step), horizon.months]:
        until = buys.expected(end * WEEKS_PER_MONTH, of.x, of.t_x, of.T)
        due = (since + 1 + end) / 2
        discounted += (until - before) / (1 + horizon.yearly_discount) ** (due / 12)
        before, since = until, end
    return discounted


def margins(of: Histories, share: float | None) -> Floats:
    """1 − the share of our cost in what was paid; where none is known, as if it cost nothing."""
    common = 0.0 if share is None else share
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.where(of.costed > 0, of.cost / of.costed, common)
    found: Floats = 1 - own
    return found


WEIGHTS = np.array([0.35, 0.35, 0.15, 0.15])


def _scores(of: Histories) -> NDArray[Any]:
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(of.costed > 0, of.cost / of.costed, np.nan)
    parts = [
        _fifths(of.recency - of.age),  # minus the days since the last purchase
        _fifths(of.x),
        _fifths(of.amount),
        _fifths(-share),
    ]
    known = np.where(parts[3] == 0, 3.0, parts[3])
    whole = np.stack([*parts[:3], known], axis=1) @ WEIGHTS
    return np.column_stack([*parts, whole])


def _fifths(figures: Floats) -> Floats:
    """1 to 5 by the share of customers whose figure is lower, equal ones alike; 0 for NaN."""
    scores = np.zeros(len(figures))
    known = ~np.isnan(figures)
    ordered = np.sort(figures[known])
    if len(ordered):
        below = np.searchsorted(ordered, figures[known], side="left")
        upto = np.searchsorted(ordered, figures[known], side="right")
        middle = (below + upto) / 2 / len(ordered)
        scores[known] = np.clip(np.ceil(middle * 5), 1, 5)
    return scores


def worths(valuation: Valuation, rows: NDArray[Any], repeats: dict[UUID, str]) -> list[Worth]:
    """The customers in these rows, in their order. `repeats`: repeat types that are known."""
    of = valuation.of
    margin = margins(of, valuation.cost_share)
    next_days: Floats = np.full(len(rows), np.nan)
    if valuation.buying is not None and len(rows):
        own, which = valuation.grouped.buyers, valuation.grouped.of[rows]
        history = own.x[which], own.t_x[which], own.T[which]
        next_days = valuation.buying.weeks_to_next(*history, LONGEST_WEEKS) * 7
    found = []
    for place, row in enumerate(rows.tolist()):
        customer_id = UUID(bytes=bytes(of.id[row]).ljust(16, b"\0"))
        repeat = repeats.get(customer_id)
        days = next_days[place]
        recency, frequency, amount, cost, whole = valuation.scores[row].tolist()
        found.append(
            Worth(
                customer_id=customer_id,
                purchase_days=int(of.x[row]) + 1,
                first_on=of.today - timedelta(days=int(of.age[row])),
                last_on=of.today - timedelta(days=int(of.age[row] - of.recency[row])),
                amount=float(of.amount[row]),
                cost_share=float(of.cost[row] / of.costed[row]) if of.costed[row] > 0 else None,
                recency_score=int(recency),
                frequency_score=int(frequency),
                amount_score=int(amount),
                cost_score=int(cost) or None,
                score=whole,
                repeat_type=repeat,
                alive=_number(valuation.alive[row]),
                expected_purchases=_number(valuation.expected[row]),
                mean_value=_number(valuation.values[row]),
                lifetime_value=_number(valuation.lifetime[row]),
                next_purchase_on=None if repeat == "project" else _day(of.today, days),
                margin=float(margin[row]),
            )
        )
    return found


def _number(value: float) -> float | None:
    """None also for what a model has out of all bounds: more than all money there is."""
    return float(value) if abs(value) < _BEYOND else None


def _day(today: date, days: float) -> date | None:
    """So many days from today, the begun one included; None beyond the calendar."""
    if np.isnan(days) or days > (date.max - today).days:
        return None
    return today + timedelta(days=int(np.ceil(days)))


def expected_revenue(valuation: Valuation, customers: list[UUID]) -> dict[UUID, Decimal | None]:
    """Expected purchases × mean value of each, within the horizon's weeks; None without a model,
    and of customers that have bought nothing."""
    found: dict[UUID, Decimal | None] = {}
    for customer_id in customers:
        row = valuation.row_of(customer_id)
        revenue = None if row is None else _number(valuation.expected[row] * valuation.values[row])
        found[customer_id] = None if revenue is None else Decimal(repr(revenue))
    return found
