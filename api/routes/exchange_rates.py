"""Exchange rates: their command and their list. Other reads convert sums by them."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from api.commands import Command
from api.openapi import link_header, read_responses
from api.routes import funnel as funnel_routes
from api.routes.reading import Reader, Shared, page_arguments, page_response
from api.schemas import forecast as shapes
from api.schemas import reads
from api.schemas.exchange_rates import RecordRate
from api.schemas.parameters import Currency, ListParameters, sorts
from domain.application import CRM
from projections import funnel
from projections.reading import Connection, Moment

MODEL = "funnel"

COMMANDS = (
    Command(
        "/v1/exchange-rates",
        RecordRate,
        CRM.record_rate,
        "Record an exchange rate",
        names="exchange-rate",
    ),
)

router = APIRouter(prefix="/v1/exchange-rates", tags=["exchange rates"])


class RateList(ListParameters):
    sort: Annotated[str, Field(pattern=sorts(tuple(funnel.RATE_SORTS)))] = "-on"
    from_currency: Currency | None = None
    to_currency: Currency | None = None


@router.get(
    "",
    summary="List exchange rates",
    response_model=reads.ListAnswer[shapes.Rate],
    responses=link_header() | read_responses(),
)
async def list_rates(
    request: Request, services: Shared, reader: Reader, parameters: Annotated[RateList, Query()]
) -> Response:
    """Those of the days up to that of `as_of`, latest first."""
    arguments = page_arguments(services, parameters, request.url.path)

    def query(connection: Connection, moment: Moment) -> Any:
        return funnel.rates(
            connection,
            moment,
            timezone=services.settings.zone,
            filters=parameters.filters(),
            **arguments,
        )

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    return page_response(
        services, request, parameters, answered, funnel_routes.rates(answered.value.rows)
    )
