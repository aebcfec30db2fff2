"""What is in the funnel, and how deals are won against whom."""

from collections.abc import Iterable
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from api.openapi import read_responses
from api.routes.reading import Reader, Shared, found, json_response
from api.schemas import forecast as shapes
from api.schemas.parameters import Flag, ReadParameters, money, number
from domain.pipeline import DEFAULT_PIPELINE_ID
from projections import funnel
from projections.funnel import CurrencyFunnel, Rate
from projections.reading import Connection, Moment

MODEL = "funnel"

router = APIRouter(prefix="/v1", tags=["funnel"])

Convert = Annotated[
    Flag,
    Field(description="Adds amounts in other currencies by the latest rates recorded up to then."),
]


class FunnelParameters(ReadParameters):
    pipeline_id: Annotated[UUID, Field(description="The default pipeline if missing.")] = (
        DEFAULT_PIPELINE_ID
    )
    convert: Convert = False


@router.get(
    "/funnel",
    summary="Open deals by stage",
    response_model=shapes.FunnelAnswer,
    responses=read_responses(404),
)
async def read_funnel(
    services: Shared, reader: Reader, parameters: Annotated[FunnelParameters, Query()]
) -> Response:
    currency = parameters.currency or services.settings.currency

    def query(connection: Connection, moment: Moment) -> Any:
        converted = None
        if parameters.convert:
            converted = funnel.conversion(connection, moment, currency, services.settings.zone)
        return funnel.funnel(
            connection,
            moment,
            pipeline_id=parameters.pipeline_id,
            currency=currency,
            converted=converted,
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
        "other_currencies": [other(row) for row in seen.other_currencies],
        "rates": rates(seen.rates),
        "definition": revision(seen.revision),
        "parked": answered.parked,
        **answered.times(),
    }
    return json_response(content)


@router.get(
    "/win-rates",
    summary="Win rate by competitor",
    response_model=shapes.WinRatesAnswer,
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
        "definition": {},
        "parked": answered.parked,
        **answered.times(),
    }
    return json_response(content)


def revision(number: int | None) -> dict[str, str]:
    """As answers name the revision of a pipeline, where they are about one."""
    return {} if number is None else {"pipeline": str(number)}


def other(row: CurrencyFunnel) -> dict[str, Any]:
    return {
        "deals": row.deals,
        "amount": money(row.amount, row.currency),
        "weighted": money(row.weighted, row.currency),
    }


def rates(rows: Iterable[Rate]) -> list[dict[str, Any]]:
    return [
        {"from": row.from_currency, "to": row.to_currency, "rate": number(row.rate), "on": row.on}
        for row in rows
    ]
