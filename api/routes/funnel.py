"""What the funnel will bring, and when."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from api.openapi import read_responses
from api.routes.reading import Reader, Shared, found, json_response
from api.schemas import reads
from api.schemas.parameters import ReadParameters, money, number
from domain.pipeline import DEFAULT_PIPELINE_ID
from projections import funnel
from projections.funnel import CurrencyFunnel, Forecast, MonthsBy, Timing
from projections.reading import Connection, Moment

MODEL = "funnel"

router = APIRouter(prefix="/v1", tags=["funnel"])


class FunnelParameters(ReadParameters):
    pipeline_id: Annotated[UUID, Field(description="The default pipeline if missing.")] = (
        DEFAULT_PIPELINE_ID
    )


class ForecastParameters(FunnelParameters):
    timing: Annotated[
        Timing, Field(description="Whether half of a stage's time is left, or all of it.")
    ] = Timing.HALF_ELAPSED
    months: Annotated[int, Field(ge=1, le=120)] = 6
    by: Annotated[
        MonthsBy, Field(description="Months from the date of the forecast, or of the calendar.")
    ] = MonthsBy.RELATIVE


@router.get(
    "/funnel",
    summary="Open deals by stage",
    response_model=reads.FunnelAnswer,
    responses=read_responses(404),
)
async def read_funnel(
    services: Shared, reader: Reader, parameters: Annotated[FunnelParameters, Query()]
) -> Response:
    currency = parameters.currency or services.settings.currency

    def query(connection: Connection, moment: Moment) -> Any:
        return funnel.funnel(
            connection, moment, pipeline_id=parameters.pipeline_id, currency=currency
        )

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    seen: funnel.Funnel = found(answered.value, "pipeline", parameters.pipeline_id)
    content = {
        "pipeline_id": seen.pipeline_id,
        "currency": seen.currency,
        "stages": [
            {
                "stage": stage.stage,
                "deals": stage.deals,
                "amount": money(stage.amount, currency),
                "weighted": money(stage.weighted, currency),
                "suspended": stage.suspended,
            }
            for stage in seen.stages
        ],
        "other_currencies": list(map(_other, seen.other_currencies)),
        "parked": answered.parked,
        **answered.times(),
    }
    return json_response(content)


@router.get(
    "/forecast",
    summary="Expected income by month",
    response_model=reads.ForecastAnswer,
    responses=read_responses(404),
)
async def read_forecast(
    services: Shared, reader: Reader, parameters: Annotated[ForecastParameters, Query()]
) -> Response:
    """Amount × chance to win, in the month in which the deal should close; with the standard
    deviation of independent deals. `total` and `sd` are over the months shown."""
    currency = parameters.currency or services.settings.currency

    def query(connection: Connection, moment: Moment) -> Any:
        return funnel.forecast(
            connection,
            moment,
            pipeline_id=parameters.pipeline_id,
            currency=currency,
            timezone=services.settings.zone,
            timing=parameters.timing,
            months=parameters.months,
            by=parameters.by,
        )

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    seen: Forecast = found(answered.value, "pipeline", parameters.pipeline_id)
    content = {
        "pipeline_id": seen.pipeline_id,
        "currency": seen.currency,
        "timing": seen.timing.value,
        "by": seen.by.value,
        "months": [
            {
                "month": month.month,
                "from": month.start,
                "to": month.end,
                "expected": money(month.expected, currency),
                "sd": money(month.sd, currency),
            }
            for month in seen.months
        ],
        "total": money(seen.total, currency),
        "sd": money(seen.sd, currency),
        "beyond": money(seen.beyond, currency),
        "other_currencies": list(map(_other, seen.other_currencies)),
        "parked": answered.parked,
        **answered.times(),
    }
    return json_response(content)


@router.get(
    "/win-rates",
    summary="Win rate by competitor",
    response_model=reads.WinRatesAnswer,
    responses=read_responses(),
)
async def read_win_rates(
    services: Shared, reader: Reader, parameters: Annotated[ReadParameters, Query()]
) -> Response:
    answered = await services.reads.ask([MODEL], parameters.question(), funnel.win_rates)
    content = {
        "competitors": [
            {
                "competitor": row.competitor,
                "won": row.won,
                "lost": row.lost,
                "rate": number(row.rate),
            }
            for row in answered.value
        ],
        "parked": answered.parked,
        **answered.times(),
    }
    return json_response(content)


def _other(row: CurrencyFunnel) -> dict[str, Any]:
    return {
        "deals": row.deals,
        "amount": money(row.amount, row.currency),
        "weighted": money(row.weighted, row.currency),
    }
