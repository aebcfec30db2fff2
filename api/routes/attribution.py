"""Which campaign earned what."""

from collections.abc import Callable, Iterable
from datetime import date
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from api.errors import InvalidRequest, ResourceNotFound
from api.openapi import read_responses
from api.reads import Answered
from api.routes.funnel import Convert, rates
from api.routes.reading import Reader, Shared, json_response
from api.schemas import attribution as schemas
from api.schemas.parameters import Day, ReadParameters, money, number
from api.services import Services
from projections import attribution
from projections.attribution import Asked, Attribution, Fit, Fits, Group, Model, WhatIf
from projections.funnel import Conversion, conversion
from projections.reading import Connection, CurrencySum, Moment

MODEL = "attribution"

router = APIRouter(prefix="/v1/attribution", tags=["attribution"])

FITS = Fits()
"""Data-driven models of this process."""

ModelParameter = Annotated[Model, Field(description="How won amounts go to touches.")]


class Dates(ReadParameters):
    from_: Annotated[
        Day | None, Field(alias="from", description="First day of signature that counts.")
    ] = None
    to: Annotated[Day | None, Field(description="First day that counts no more.")] = None

    def days(self) -> tuple[date | None, date | None]:
        """Raises InvalidRequest where `to` is before `from`."""
        if self.from_ is not None and self.to is not None and self.to < self.from_:
            raise InvalidRequest.of_parameter("to", "is before `from`")
        return self.from_, self.to


class Comparison(Dates):
    group: Annotated[
        Group,
        Field(
            description="Attribute of the campaign that credits are summed by. A size band is by"
            " attendees: those counted, else those planned."
        ),
    ] = Group.CAMPAIGN
    convert: Convert = False


class AttributionParameters(Comparison):
    model: ModelParameter = Model.LAST


class WhatIfParameters(Dates):
    model: ModelParameter = Model.LAST
    remove: Annotated[UUID, Field(description="The campaign.")]


def asked(services: Services, parameters: ReadParameters, dates: Dates | None = None) -> Asked:
    """The question to the read model. Raises InvalidRequest."""
    start, end = (None, None) if dates is None else dates.days()
    return Asked(
        currency=parameters.currency or services.settings.currency,
        start=start,
        end=end,
        definition=services.definitions.attribution,
        zone=services.settings.zone.key,
    )


def closing(services: Services, answered: Answered[Any]) -> dict[str, object]:
    """What every analytic answer says about itself."""
    return {
        "definition": {"attribution": services.definitions.attribution.id},
        "parked": answered.parked,
        **answered.times(),
    }


@router.get(
    "",
    summary="Won revenue by campaign",
    response_model=schemas.AttributionAnswer,
    responses=read_responses(),
)
async def read_attribution(
    services: Shared, reader: Reader, parameters: Annotated[AttributionParameters, Query()]
) -> Response:
    """`revenue` is `unattributed` and all credits together, to the minor unit.

    A rule model splits each deal's amount; markov and shapley split the revenue of all deals that
    had a touch, by the paths that ended in the same days.
    """
    question = asked(services, parameters, parameters)

    def query(connection: Connection, moment: Moment) -> Attribution:
        return attribution.attribution(
            connection,
            moment,
            model=parameters.model,
            asked=question,
            fits=FITS,
            group=parameters.group,
            converted=_conversion(connection, moment, services, parameters, question),
        )

    answered = await services.reads.ask(_models(parameters), parameters.question(), query)
    seen = answered.value
    content = {
        **_attributed(seen),
        "currency": seen.currency,
        "group": parameters.group.value,
        "from": parameters.from_,
        "to": parameters.to,
        "other_currencies": others(seen.other_currencies),
        "rates": rates(seen.rates),
        **closing(services, answered),
    }
    return json_response(content)


@router.get(
    "/comparison",
    summary="Won revenue by campaign, every model side by side",
    response_model=schemas.ComparisonAnswer,
    responses=read_responses(),
)
async def compare(
    services: Shared, reader: Reader, parameters: Annotated[Comparison, Query()]
) -> Response:
    """Revenue and what is unattributed are the same under all models."""
    question = asked(services, parameters, parameters)

    def query(connection: Connection, moment: Moment) -> list[Attribution]:
        return attribution.attributions(
            connection,
            moment,
            models=list(Model),
            asked=question,
            fits=FITS,
            group=parameters.group,
            converted=_conversion(connection, moment, services, parameters, question),
        )

    answered = await services.reads.ask(_models(parameters), parameters.question(), query)
    content = {
        "currency": question.currency,
        "group": parameters.group.value,
        "from": parameters.from_,
        "to": parameters.to,
        "models": list(map(_attributed, answered.value)),
        "other_currencies": others(answered.value[0].other_currencies),
        "rates": rates(answered.value[0].rates),
        **closing(services, answered),
    }
    return json_response(content)


@router.get(
    "/what-if",
    summary="Won revenue without a campaign",
    response_model=schemas.WhatIfAnswer,
    responses=read_responses(404),
)
async def what_if(
    services: Shared, reader: Reader, parameters: Annotated[WhatIfParameters, Query()]
) -> Response:
    """By rule models and shapley: as if its touches had not been; the deals stay won, and those
    without another touch become unattributed. By markov: what it led to would have come to nothing.
    """
    question = asked(services, parameters, parameters)

    def query(connection: Connection, moment: Moment) -> tuple[WhatIf, dict[UUID, str]] | None:
        profiles = attribution.campaign_profiles(connection, moment)
        if parameters.remove not in profiles:
            return None
        found = attribution.what_if(
            connection,
            moment,
            campaign=parameters.remove,
            model=parameters.model,
            asked=question,
            fits=FITS,
        )
        return found, {id_: profile.name for id_, profile in profiles.items()}

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    if answered.value is None:
        raise ResourceNotFound(f"There is no campaign {parameters.remove}, or there was none then.")
    seen, names = answered.value
    in_currency = _in(question.currency)
    ids = sorted(id_ for id_ in seen.before.keys() | seen.after.keys() if id_ is not None)
    ids.sort(key=lambda id_: -seen.before.get(id_, Decimal(0)))
    content = {
        "model": seen.model.value,
        "currency": question.currency,
        "removed": parameters.remove,
        "from": parameters.from_,
        "to": parameters.to,
        "revenue_before": in_currency(sum(seen.before.values(), Decimal(0))),
        "revenue_after": in_currency(sum(seen.after.values(), Decimal(0))),
        "unattributed_before": in_currency(seen.before.get(None, Decimal(0))),
        "unattributed_after": in_currency(seen.after.get(None, Decimal(0))),
        "removal_effect": None if seen.effect is None else ratio(seen.effect),
        "campaigns": [
            {
                "campaign_id": id_,
                "name": names.get(id_),
                "before": in_currency(seen.before.get(id_, Decimal(0))),
                "after": in_currency(seen.after.get(id_, Decimal(0))),
            }
            for id_ in ids
        ],
        **closing(services, answered),
    }
    return json_response(content)


@router.get(
    "/deals/{id}",
    summary="What each touch of a won deal earned",
    response_model=schemas.DealCreditsAnswer,
    responses=read_responses(404),
)
async def read_deal_credits(
    id: UUID, services: Shared, reader: Reader, parameters: Annotated[ReadParameters, Query()]
) -> Response:
    """By the rule models; the data-driven ones credit no deal's amount to anybody."""
    customer_id = await services.reads.partition_key(id)
    if customer_id is None:
        raise ResourceNotFound(f"There is no opportunity {id}.")

    def query(connection: Connection, moment: Moment) -> attribution.DealCredits | None:
        return attribution.deal_credits(connection, moment, customer_id=customer_id, deal_id=id)

    answered = await services.reads.ask(
        [MODEL], parameters.question(), query, key=customer_id, partition_key=customer_id
    )
    seen = answered.value
    in_currency = _in(seen.currency if seen else services.settings.currency)
    content = {
        "deal_id": id,
        "won_on": seen.won_on if seen else None,
        "amount": in_currency(seen.amount) if seen else None,
        "touches": [
            {
                "campaign_id": touch.campaign_id,
                "touch": touch.touch,
                "touched_at": touch.touched_at,
                "anchors": touch.anchors,
                "credits": {
                    model.value: in_currency(value) for model, value in touch.credits.items()
                },
            }
            for touch in (seen.touches if seen else ())
        ],
        **closing(services, answered),
    }
    return json_response(content)


def _models(parameters: Comparison) -> list[str]:
    return [MODEL, "funnel"] if parameters.convert else [MODEL]


def _conversion(
    connection: Connection,
    moment: Moment,
    services: Services,
    parameters: Comparison,
    question: Asked,
) -> Conversion | None:
    if not parameters.convert:
        return None
    return conversion(connection, moment, question.currency, services.settings.zone)


def others(sums: Iterable[CurrencySum]) -> list[dict[str, object]]:
    """What stands beside because it is in another currency."""
    return [{"deals": one.count, "amount": money(one.amount, one.currency)} for one in sums]


def ratio(value: float) -> str | None:
    """To six decimals."""
    return number(Decimal(f"{value:.6f}"))


def _in(currency: str) -> Callable[[Decimal], dict[str, str]]:
    return lambda amount: money(amount, currency)


def _attributed(seen: Attribution) -> dict[str, Any]:
    in_currency = _in(seen.currency)
    return {
        "model": seen.model.value,
        "revenue": in_currency(seen.revenue),
        "unattributed": in_currency(seen.unattributed),
        "campaigns": [
            {
                "campaign_id": row.campaign_id,
                "name": row.name,
                "credit": in_currency(row.credit),
                "cost": None if row.cost is None else in_currency(row.cost),
                "return": number(row.return_),
                "error": None if row.error is None else in_currency(row.error),
            }
            for row in seen.campaigns
        ],
        "groups": [
            {
                "value": group.value,
                "campaigns": group.campaigns,
                "credit": in_currency(group.credit),
                "cost": in_currency(group.cost),
                "return": number(group.return_),
            }
            for group in seen.groups
        ],
        "fit": None if seen.fit is None else _fit(seen.fit),
    }


def _fit(fit: Fit) -> dict[str, Any]:
    effects = fit.effects
    return {
        "paths": fit.paths,
        "wins": fit.wins,
        "orders": fit.orders,
        "removal_effects": None
        if effects is None
        else {str(campaign): ratio(effect) for campaign, effect in effects.items()},
    }
