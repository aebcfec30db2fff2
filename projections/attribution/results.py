"""Which campaign earned what, by one model or by all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from uuid import UUID

from domain.definitions import AttributionDefinition
from domain.values import minor_units
from projections.attribution.campaigns import COST
from projections.attribution.credits import CreditFold
from projections.attribution.exact import split_decimal
from projections.attribution.fits import Fit, Fits, Shares
from projections.attribution.models import RULES, Model
from projections.funnel.rates import Conversion, Rate
from projections.reading import Connection, CurrencySum, Moment, fetch, truth
from projections.summaries import net

Credits = dict[UUID | None, Decimal]
"""By campaign; None: unattributed."""


class Group(StrEnum):
    """What credits are summed by: attributes of campaigns."""

    CAMPAIGN = "campaign"
    CHANNEL = "channel"
    REGION = "region"
    SIZE_BAND = "size_band"


@dataclass(frozen=True, slots=True)
class CampaignCredit:
    """A campaign that touched a won deal. `cost` is None where it is in another currency than
    asked; `return_` = (credit − cost) ÷ cost, None without cost; `error`: standard error of a
    credit that was estimated by sampling."""

    campaign_id: UUID
    name: str | None
    credit: Decimal
    cost: Decimal | None
    return_: Decimal | None
    error: Decimal | None = None


@dataclass(frozen=True, slots=True)
class GroupCredit:
    """The credits of the campaigns with this value; `cost` is that of all campaigns with it, those
    that touched no won deal included, in the currency asked."""

    value: str | None
    campaigns: int
    credit: Decimal
    cost: Decimal
    return_: Decimal | None


@dataclass(frozen=True, slots=True)
class Attribution:
    """`revenue` = `unattributed` + the credits of all `campaigns` = `unattributed` + those of all
    `groups` (none where the group is the campaign), to the minor unit. `fit`: of a data-driven
    model."""

    model: Model
    currency: str
    revenue: Decimal
    unattributed: Decimal
    campaigns: list[CampaignCredit]
    groups: list[GroupCredit]
    other_currencies: list[CurrencySum]
    fit: Fit | None = None
    rates: list[Rate] = field(default_factory=list)
    """By which amounts in other currencies were converted."""


@dataclass(frozen=True, slots=True)
class Won:
    """Won revenue in one currency: of so many deals, by rule model and campaign."""

    deals: int
    credits: Mapping[Model, Credits]

    @property
    def revenue(self) -> Decimal:
        return sum(next(iter(self.credits.values())).values(), Decimal(0))

    def of(self, model: Model, shares: Shares | None, currency: str) -> Credits:
        """The credits under the model; a data-driven one's go by the shares of its fit."""
        if shares is None:
            return dict(self.credits[model])
        unattributed = next(iter(self.credits.values())).get(None, Decimal(0))
        return distributed(self.revenue - unattributed, unattributed, shares, currency)


@dataclass(frozen=True, slots=True)
class Profile:
    """What campaigns are grouped by, and what one cost."""

    name: str
    channel: str
    region: str | None
    attendees: int | None
    currency: str
    cost: Decimal


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about won revenue: of deals signed in [start, end)."""

    currency: str
    start: date | None = None
    end: date | None = None
    definition: AttributionDefinition = field(default_factory=AttributionDefinition)
    zone: str = "UTC"
    """In which days are reckoned."""


def attribution(
    connection: Connection,
    moment: Moment,
    *,
    model: Model,
    asked: Asked,
    fits: Fits,
    group: Group = Group.CAMPAIGN,
    converted: Conversion | None = None,
) -> Attribution:
    """Won revenue by campaign, highest credit first.

    The costs are all that were booked by `as_of`, whenever the deals were won. A data-driven model
    is fitted to the paths that ended in [start, end), whatever their currency. `converted`: adds
    what is in other currencies, as far as there are rates.
    """
    return attributions(
        connection,
        moment,
        models=[model],
        asked=asked,
        fits=fits,
        group=group,
        converted=converted,
    )[0]


def attributions(
    connection: Connection,
    moment: Moment,
    *,
    models: Sequence[Model],
    asked: Asked,
    fits: Fits,
    group: Group = Group.CAMPAIGN,
    converted: Conversion | None = None,
) -> list[Attribution]:
    """The same by several models."""
    rules = [model for model in models if model in RULES] or [Model.LAST]
    won = won_revenue(connection, moment, rules, asked.start, asked.end)
    profiles = campaign_profiles(connection, moment)
    found = []
    into = converted or Conversion(asked.currency, {})
    for model in models:
        fit = None
        if model not in RULES:
            fit = fits.fit(
                connection, moment, model, asked.definition, asked.start, asked.end, asked.zone
            )
        found.append(_attribution(model, won, profiles, asked, group, fit, into))
    return found


def _attribution(
    model: Model,
    won: Mapping[str, Won],
    profiles: Mapping[UUID, Profile],
    asked: Asked,
    group: Group,
    fit: Fit | None,
    into: Conversion,
) -> Attribution:
    shares = None if fit is None else fit.shares
    by_currency = {currency: one.of(model, shares, currency) for currency, one in won.items()}
    credits = in_one_currency(by_currency, into)
    unattributed = credits.pop(None, Decimal(0))
    attributed = sum(credits.values(), Decimal(0))
    costs = {id_: _cost(profile, into) for id_, profile in profiles.items()}
    return Attribution(
        model=model,
        currency=asked.currency,
        revenue=attributed + unattributed,
        unattributed=unattributed,
        campaigns=_campaigns(credits, profiles, costs, attributed, fit),
        groups=_groups(credits, profiles, costs, asked, group),
        other_currencies=[
            CurrencySum(currency, other.deals, other.revenue)
            for currency, other in sorted(won.items())
            if into.factor(currency) is None
        ],
        fit=fit,
        rates=into.used(won),
    )


def in_one_currency(by_currency: Mapping[str, Credits], into: Conversion) -> Credits:
    """The credits in all currencies that have a rate, together, to the minor unit.

    Revenue and what is unattributed are converted and rounded as sums, so that they are the same
    under every model; the campaigns share the difference, of equal remainders the lower id first.
    """
    own = dict(by_currency.get(into.currency, {}))
    exact = {campaign: Fraction(credit) for campaign, credit in own.items()}
    rates = 0
    for currency, credits in by_currency.items():
        if currency == into.currency or into.factor(currency) is None:
            continue
        rates += 1
        for campaign, credit in credits.items():
            exact[campaign] = exact.get(campaign, Fraction(0)) + into.exact(credit, currency)
    if not rates:
        return own
    decimals = minor_units(into.currency)
    alone = exact.pop(None, Fraction(0))
    unattributed = _units(alone, decimals)
    rest = _units(alone + sum(exact.values()), decimals) - unattributed
    campaigns = sorted(campaign for campaign in exact if campaign is not None)
    parts = split_decimal(rest, [exact[campaign] for campaign in campaigns], decimals)
    return {None: unattributed, **dict(zip(campaigns, parts, strict=True))}


def _units(value: Fraction, decimals: int) -> Decimal:
    """To so many decimals, halves to the even one."""
    return Decimal(round(value * 10**decimals)).scaleb(-decimals)


def _cost(profile: Profile, into: Conversion) -> Decimal | None:
    """In the currency asked; None where it is in another that has no rate."""
    if into.factor(profile.currency) is None:
        return None
    if profile.currency == into.currency:
        return profile.cost
    return _units(into.exact(profile.cost, profile.currency), minor_units(into.currency))


def _campaigns(
    credits: Credits,
    profiles: Mapping[UUID, Profile],
    costs: Mapping[UUID, Decimal | None],
    attributed: Decimal,
    fit: Fit | None,
) -> list[CampaignCredit]:
    found = []
    for campaign_id, credit in credits.items():
        if campaign_id is None:
            continue
        profile = profiles.get(campaign_id)
        cost = costs.get(campaign_id, Decimal(0))
        error = None
        if fit is not None and fit.errors is not None:
            error = attributed * Decimal(fit.errors[campaign_id])
        name = None if profile is None else profile.name
        found.append(
            CampaignCredit(campaign_id, name, credit, cost, return_on(credit, cost), error)
        )
    return sorted(found, key=lambda one: (-one.credit, one.campaign_id))


def _groups(
    credits: Credits,
    profiles: Mapping[UUID, Profile],
    costs: Mapping[UUID, Decimal | None],
    asked: Asked,
    group: Group,
) -> list[GroupCredit]:
    """Highest return first, those without cost after them, by credit."""
    if group is Group.CAMPAIGN:
        return []
    values = {id_: group_of(profile, group, asked.definition) for id_, profile in profiles.items()}
    campaigns: dict[str | None, int] = {}
    spent: dict[str | None, Decimal] = {}
    sums: dict[str | None, Decimal] = {}
    for campaign_id, value in values.items():
        campaigns[value] = campaigns.get(value, 0) + 1
        spent[value] = spent.get(value, Decimal(0)) + (costs[campaign_id] or Decimal(0))
    for campaign, credit in credits.items():
        value = values.get(campaign) if campaign is not None else None
        sums[value] = sums.get(value, Decimal(0)) + credit
    rows = [
        GroupCredit(
            value,
            campaigns.get(value, 0),
            sums.get(value, Decimal(0)),
            spent.get(value, Decimal(0)),
            return_on(sums.get(value, Decimal(0)), spent.get(value)),
        )
        for value in campaigns.keys() | sums.keys()
    ]
    return ranked(rows)


def ranked(rows: Iterable[GroupCredit]) -> list[GroupCredit]:
    """Best return first; what cost nothing comes last, by credit."""
    return sorted(
        rows,
        key=lambda row: (
            row.return_ is None,
            -(row.return_ or Decimal(0)),
            -row.credit,
            row.value or "",
        ),
    )


def group_of(profile: Profile, group: Group, definition: AttributionDefinition) -> str | None:
    """The campaign's value; None where it has none."""
    match group:
        case Group.CHANNEL:
            return profile.channel
        case Group.REGION:
            return profile.region
        case Group.SIZE_BAND:
            return size_band(profile.attendees, definition)
        case _:
            raise ValueError(group)


def size_band(attendees: int | None, definition: AttributionDefinition) -> str | None:
    """small, medium or large; None where nobody counted and nothing was planned."""
    if attendees is None:
        return None
    medium, large = definition.size_limits
    return "small" if attendees < medium else "medium" if attendees < large else "large"


def won_revenue(
    connection: Connection,
    moment: Moment,
    models: Iterable[Model],
    start: date | None,
    end: date | None,
) -> dict[str, Won]:
    """By currency, the won revenue of deals signed in [start, end) by rule model and campaign."""
    models = list(models)
    columns = ", ".join(("campaign_id", "currency", *(str(model) for model in models)))
    sums = ", ".join(f"sum({model}) AS {model}" for model in models)
    first, last = _whole_months(start, end)
    months = net(
        connection,
        moment,
        CreditFold,
        CreditFold.periods[0],
        "(%(first)s::date IS NULL OR won_month >= %(first)s)"
        " AND (%(last)s::date IS NULL OR won_month < %(last)s)",
    )
    rows = fetch(
        connection,
        f"""SELECT campaign_id, currency, sum(deals)::bigint AS deals, {sums}
            FROM (
                SELECT {columns}, deals FROM ({months}) AS month
                UNION ALL
                SELECT {columns}, (place <= 1)::int FROM credit_period WHERE {truth(moment)}
                AND (won_on >= %(start)s::date AND won_on < %(first)s::date
                    OR won_on >= %(last)s::date AND won_on < %(end)s::date)) AS part
            GROUP BY campaign_id, currency""",
        {**moment.parameters(), "start": start, "end": end, "first": first, "last": last},
    )
    found: dict[str, Won] = {}
    for currency in {row["currency"] for row in rows}:
        own = [row for row in rows if row["currency"] == currency]
        found[currency] = Won(
            sum(row["deals"] for row in own),
            {model: {row["campaign_id"]: row[model] for row in own} for model in models},
        )
    return found


def _whole_months(start: date | None, end: date | None) -> tuple[date | None, date | None]:
    """The days in between that are whole months, as [first, last), which may be none of them."""
    last = None if end is None else end.replace(day=1)
    if start is None or start.day == 1:
        return start, last
    if last is not None and last <= start:
        return end, end
    if (start.year, start.month) == (date.max.year, date.max.month):
        return date.max, last
    return (start.replace(day=1) + timedelta(days=32)).replace(day=1), last


def campaign_profiles(connection: Connection, moment: Moment) -> dict[UUID, Profile]:
    """All campaigns there were, by id. Attendees are those planned until somebody counted."""
    rows = fetch(
        connection,
        f"""SELECT campaign_id, name, channel, region, currency, {COST} AS cost,
            coalesce(attendees, planned_attendees) AS attendees
            FROM campaign_period AS row WHERE {truth(moment, "row")}""",
        moment.parameters(),
    )
    return {row.pop("campaign_id"): Profile(**row) for row in rows}


def distributed(
    attributed: Decimal, unattributed: Decimal, shares: Shares, currency: str
) -> Credits:
    """The attributed amount by the shares, to the minor unit; the rest stays unattributed."""
    credits: Credits = {None: unattributed}
    if shares:
        parts = split_decimal(attributed, list(shares.values()), minor_units(currency))
        credits |= zip(shares, parts, strict=True)
    else:
        credits[None] += attributed
    return credits


def return_on(credit: Decimal, cost: Decimal | None) -> Decimal | None:
    """(credit − cost) ÷ cost, to six decimals; None without cost."""
    return round((credit - cost) / cost, 6) if cost else None


@dataclass(frozen=True, slots=True)
class TouchCredit:
    """What one touch earned of a won deal, under each rule model. No campaign: unattributed."""

    campaign_id: UUID | None
    touch: int
    touched_at: datetime | None
    anchors: list[str]
    credits: dict[Model, Decimal]


@dataclass(frozen=True, slots=True)
class DealCredits:
    """A won deal's touches in order. Under every model their credits sum to `amount`."""

    deal_id: UUID
    won_on: date
    amount: Decimal
    currency: str
    touches: list[TouchCredit]


def deal_credits(
    connection: Connection, moment: Moment, *, customer_id: UUID, deal_id: UUID
) -> DealCredits | None:
    """The credits of a deal of the customer; None where it was not won."""
    rows = fetch(
        connection,
        f"""SELECT * FROM credit_period WHERE customer_id = %(customer)s::uuid
            AND deal_id = %(deal)s::uuid AND {truth(moment)} ORDER BY place""",
        {**moment.parameters(), "customer": str(customer_id), "deal": str(deal_id)},
    )
    if not rows:
        return None
    touches = [
        TouchCredit(
            row["campaign_id"],
            row["touch"],
            row["touched_at"],
            row["anchors"].split(),
            {model: row[model.value] for model in RULES},
        )
        for row in rows
    ]
    amount = sum((touch.credits[RULES[0]] for touch in touches), Decimal(0))
    return DealCredits(deal_id, rows[0]["won_on"], amount, rows[0]["currency"], touches)
