"""What if a campaign had not been: credits without its touches, or without what it led to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from domain.values import minor_units
from projections.attribution.credits import AMOUNT, CAMPAIGN, KIND, CreditFold
from projections.attribution.fits import Fits
from projections.attribution.models import RULES, Model
from projections.attribution.results import (
    Asked,
    Credits,
    Won,
    distributed,
    won_revenue,
)
from projections.projection import NULL, Fact, Row, instant, text
from projections.reading import Connection, Moment, fetch, recorded, truth

_FIRST = 6
"""Place of the first model's credit among a row's values."""
_PAGE = 20_000


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Credits as they are, and as they would be; each sums to the revenue on its side.

    Without its touches (rule models, Shapley) the deals stay won, and those that it alone touched
    are unattributed. Under the Markov chain the paths through it end in nothing: `effect` of the
    attributed revenue is lost.
    """

    model: Model
    before: Credits
    after: Credits
    effect: float | None


def what_if(
    connection: Connection,
    moment: Moment,
    *,
    campaign: UUID,
    model: Model,
    asked: Asked,
    fits: Fits,
) -> WhatIf:
    """The campaign removed, for won revenue in the currency asked."""
    rule = model if model in RULES else Model.LAST
    won = won_revenue(connection, moment, [rule], asked.start, asked.end)
    own = won.get(asked.currency, Won(0, {rule: {}}))
    dates = (asked.definition, asked.start, asked.end, asked.zone)
    shares = None
    if model not in RULES:
        shares = fits.fit(connection, moment, model, *dates).shares
    before = own.of(model, shares, asked.currency)
    if model is Model.MARKOV:
        removal = fits.removal(connection, moment, *dates, campaign)
        unattributed = before.get(None, Decimal(0))
        attributed = sum(before.values(), Decimal(0)) - unattributed
        left = _rounded(attributed * (1 - Decimal(removal.effect)), asked.currency)
        after: Credits = {None: unattributed}
        if removal.shares:
            after = distributed(left, unattributed, removal.shares, asked.currency)
        return WhatIf(model, before, after, removal.effect)
    after = _without_touches(connection, moment, campaign, rule, asked, own.credits[rule])
    if model is Model.SHAPLEY:
        shares = fits.fit(connection, moment, model, *dates, without=campaign).shares
        after = Won(0, {rule: after}).of(model, shares, asked.currency)
    return WhatIf(model, before, after, None)


def _without_touches(
    connection: Connection,
    moment: Moment,
    campaign: UUID,
    model: Model,
    asked: Asked,
    credits: Credits,
) -> Credits:
    """The credits, where those of the customers that it touched are folded anew without it."""
    touched = f"""customer_id IN (SELECT customer_id FROM touch_fact
        WHERE campaign_id = %(campaign)s::uuid AND {recorded(moment)})"""
    parameters = {
        **moment.parameters(),
        "campaign": str(campaign),
        "currency": asked.currency,
        "start": asked.start,
        "end": asked.end,
    }
    after = dict(credits)
    for row in fetch(
        connection,
        f"""SELECT campaign_id, sum({model}) AS credit FROM credit_period
            WHERE {touched} AND {truth(moment)} AND currency = %(currency)s
            AND (%(start)s::date IS NULL OR won_on >= %(start)s)
            AND (%(end)s::date IS NULL OR won_on < %(end)s) GROUP BY 1""",
        parameters,
    ):
        after[row["campaign_id"]] -= row["credit"]
    place = _FIRST + RULES.index(model)
    for folded in _folded(connection, moment, touched, parameters, str(campaign), asked):
        values = folded[4].split("\t")
        signed_on = values[5]
        if (
            values[4] == asked.currency
            and (asked.start is None or signed_on >= str(asked.start))
            and (asked.end is None or signed_on < str(asked.end))
        ):
            key = None if values[0] == NULL else UUID(values[0])
            after[key] = after.get(key, Decimal(0)) + Decimal(values[place])
    after.pop(campaign, None)
    return after


def _folded(
    connection: Connection,
    moment: Moment,
    touched: str,
    parameters: dict[str, object],
    campaign: str,
    asked: Asked,
) -> Iterable[Row]:
    """The rows of these customers' facts without the campaign, customer by customer."""
    fold = CreditFold(asked.definition)
    columns = ", ".join(f"{column.name}::text" for column in fold.facts.columns)
    state, of = fold.start, None
    with connection.cursor() as cursor:
        cursor.execute(
            f"""SELECT customer_id, occurred_at, position, {columns} FROM touch_fact
                WHERE {touched} AND {recorded(moment)}
                ORDER BY customer_id, occurred_at, position""",
            parameters,
        )
        while rows := cursor.fetchmany(_PAGE):
            for customer, occurred_at, position, *values in rows:
                if customer != of:
                    yield from state[0]
                    state, of = fold.start, customer
                fact = _without((instant(occurred_at), position, *map(text, values)), campaign)
                if fact is not None:
                    state, settled = fold.step(state, fact)
                    yield from settled
    yield from state[0]


def _without(fact: Fact, campaign: str) -> Fact | None:
    """A deal that was opened from the campaign was opened all the same."""
    if fact[CAMPAIGN] != campaign:
        return fact
    if fact[KIND] != "opened":
        return None
    return (*fact[:CAMPAIGN], NULL, *fact[CAMPAIGN + 1 : AMOUNT], *fact[AMOUNT:])


def _rounded(amount: Decimal, currency: str) -> Decimal:
    return amount.quantize(Decimal(1).scaleb(-minor_units(currency)))
