"""What customers are worth: scores, the chance that they still buy, lifetime value."""

from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from api.openapi import read_responses
from api.routes.lifecycle import MODEL, analysis, definition, purchases_beside
from api.routes.reading import Reader, Shared, found, json_response
from api.schemas import value as shapes
from api.schemas.parameters import ReadParameters, money, number
from api.services import Services
from projections import lifecycle
from projections.lifecycle.value.worth import (
    Horizon,
    Valuation,
    Valuations,
    Worth,
    repeat_type,
    worths,
)
from projections.reading import Connection, Moment

router = APIRouter(prefix="/v1", tags=["value"])

VALUATIONS = Valuations()
"""Models of this process, by position."""

FORMULA = (
    "sum over months m of the horizon: purchases expected in m × mean value × margin"
    " ÷ (1 + yearly discount)^(m/12); margin = 1 − cost share, the customer's own where known"
)


class ModelParameters(ReadParameters):
    horizon_months: Annotated[
        int, Field(ge=1, le=120, description="That lifetime value is reckoned over.")
    ] = 36
    weeks: Annotated[
        int, Field(ge=1, le=520, description="That expected purchases are reckoned for.")
    ] = 52
    yearly_discount: Annotated[
        Decimal, Field(ge=0, le=1, decimal_places=6, description="0.1 is ten per cent a year.")
    ] = Decimal("0.1")

    def horizon(self) -> Horizon:
        return Horizon(self.horizon_months, float(self.yearly_discount), self.weeks)


class ValueParameters(ModelParameters):
    sort: Annotated[
        Literal["lifetime_value", "expected_purchases", "alive", "score", "amount"],
        Field(description="The highest first."),
    ] = "lifetime_value"
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    offset: Annotated[int, Field(ge=0, le=100_000_000)] = 0


@router.get(
    "/value",
    summary="What customers are worth, the highest first",
    response_model=shapes.WorthsAnswer,
    responses=read_responses(),
)
async def value(
    services: Shared, reader: Reader, parameters: Annotated[ValueParameters, Query()]
) -> Response:
    """Recency, frequency, amount and our cost; the chance to be alive, the next purchase and
    lifetime value by BG/NBD and Gamma-Gamma. All purchases of one day are one."""

    def query(connection: Connection, moment: Moment) -> tuple[Valuation, list[Worth]]:
        valuation = _valuation(services, parameters, connection, moment)
        first = parameters.offset
        rows = valuation.ranking(parameters.sort)[first : first + parameters.limit]
        ids = [UUID(bytes=bytes(valuation.of.id[row]).ljust(16, b"\0")) for row in rows]
        return valuation, worths(valuation, rows, repeat_type(connection, moment, ids))

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    valuation, rows = answered.value
    currency = parameters.currency or services.settings.currency
    content = {
        "sort": parameters.sort,
        "offset": parameters.offset,
        "model": _model(valuation, parameters, currency),
        "customers": [_worth(row, currency) for row in rows],
    }
    return analysis(services, answered, content, "path")


@router.get(
    "/value/model",
    summary="The models of purchases and their value",
    response_model=shapes.ModelAnswer,
    responses=read_responses(),
)
async def value_model(
    services: Shared, reader: Reader, parameters: Annotated[ModelParameters, Query()]
) -> Response:
    """The parameters of greatest likelihood, and how many customers they were fitted to. With too
    few there is none, and `reason` says so."""

    def query(connection: Connection, moment: Moment) -> Valuation:
        return _valuation(services, parameters, connection, moment)

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    currency = parameters.currency or services.settings.currency
    return analysis(services, answered, _model(answered.value, parameters, currency), "path")


@router.get(
    "/customers/{id}/value",
    summary="What a customer is worth",
    response_model=shapes.WorthAnswer,
    responses=read_responses(404),
)
async def customer_value(
    id: UUID, services: Shared, reader: Reader, parameters: Annotated[ModelParameters, Query()]
) -> Response:
    """As in the list, with the model and the formula that lead to it."""

    def query(connection: Connection, moment: Moment) -> Any:
        there = lifecycle.standing(connection, id, moment)
        valuation = _valuation(services, parameters, connection, moment)
        row = valuation.row_of(id)
        if row is None:
            return there, valuation, None
        rows = valuation.ranking("score")
        rows = rows[rows == row]
        return there, valuation, worths(valuation, rows, repeat_type(connection, moment, [id]))[0]

    answered = await services.reads.ask([MODEL], parameters.question(), query, key=id)
    there, valuation, worth = answered.value
    found(there or None, "customer", id)
    currency = parameters.currency or services.settings.currency
    content = {
        "customer_id": id,
        "worth": None if worth is None else _worth(worth, currency),
        "model": _model(valuation, parameters, currency),
        "definition": definition(services, "path"),
        **answered.times(),
    }
    return json_response(content)


def _valuation(
    services: Services, parameters: ModelParameters, connection: Connection, moment: Moment
) -> Valuation:
    return VALUATIONS.valuation(
        connection,
        moment,
        currency=parameters.currency or services.settings.currency,
        timezone=services.settings.zone,
        horizon=parameters.horizon(),
    )


def _model(valuation: Valuation, parameters: ModelParameters, currency: str) -> dict[str, Any]:
    buys, spends = valuation.buying, valuation.spending
    return {
        "customers": len(valuation.of),
        "repeaters": valuation.repeaters,
        "reason": valuation.reason,
        "buying": None
        if buys is None
        else {
            name: _rounded(getattr(buys, name))
            for name in ("r", "alpha", "a", "b", "log_likelihood")
        },
        "spending": None
        if spends is None
        else {
            name: _rounded(getattr(spends, name)) for name in ("p", "q", "gamma", "log_likelihood")
        },
        "currency": currency,
        "cost_share": _rounded(valuation.cost_share),
        "horizon_months": parameters.horizon_months,
        "yearly_discount": number(parameters.yearly_discount),
        "weeks": parameters.weeks,
        "formula": FORMULA,
        "other_currencies": purchases_beside(valuation.of.other_currencies),
    }


def _worth(row: Worth, currency: str) -> dict[str, Any]:
    return {
        "customer_id": row.customer_id,
        "purchase_days": row.purchase_days,
        "first_on": row.first_on,
        "last_on": row.last_on,
        "amount": _money(row.amount, currency),
        "cost_share": _rounded(row.cost_share),
        "scores": {
            "recency": row.recency_score,
            "frequency": row.frequency_score,
            "amount": row.amount_score,
            "cost": row.cost_score,
            "whole": _rounded(row.score),
        },
        "repeat_type": row.repeat_type,
        "alive": _rounded(row.alive),
        "expected_purchases": _rounded(row.expected_purchases),
        "mean_value": _money(row.mean_value, currency),
        "margin": _rounded(row.margin),
        "lifetime_value": _money(row.lifetime_value, currency),
        "next_purchase_on": row.next_purchase_on,
    }


def _rounded(value: float | None) -> str | None:
    return None if value is None else number(round(Decimal(repr(value)), 6))


def _money(value: float | None, currency: str) -> dict[str, str] | None:
    return None if value is None else money(Decimal(repr(value)), currency)
