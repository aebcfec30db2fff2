"""Where customers stand in their lifecycle, how they moved and how long they stayed."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from api.openapi import read_responses
from api.routes.reading import Reader, Shared, json_response
from api.schemas import reads
from api.schemas.fields import EARLIEST
from api.schemas.parameters import Instant, ReadParameters, number
from projections import lifecycle
from projections.lifecycle import Classification, Distribution, Duration, Transitions
from projections.reading import Connection, Moment

MODEL = "lifecycle"

router = APIRouter(prefix="/v1/lifecycle", tags=["lifecycle"])


class LifecycleParameters(ReadParameters):
    classification: Classification = Classification.TYPE


class TransitionParameters(LifecycleParameters):
    from_: Annotated[
        Instant | None, Field(alias="from", description="From the beginning if missing.")
    ] = None
    to: Annotated[Instant | None, Field(description="Before this time; `as_of` if missing.")] = None


@router.get(
    "",
    summary="How many customers stand where",
    response_model=reads.DistributionAnswer,
    responses=read_responses(),
)
async def distribution(
    services: Shared, reader: Reader, parameters: Annotated[LifecycleParameters, Query()]
) -> Response:
    """Every customer has exactly one value in each classification."""

    def query(connection: Connection, moment: Moment) -> Distribution:
        return lifecycle.distribution(connection, moment, classification=parameters.classification)

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    seen = answered.value
    content = {
        "classification": seen.classification.value,
        "customers": seen.customers,
        "distribution": [
            {"value": row.value, "customers": row.customers} for row in seen.distribution
        ],
        "parked": answered.parked,
        **answered.times(),
    }
    return json_response(content)


@router.get(
    "/transitions",
    summary="Moves from value to value",
    response_model=reads.TransitionsAnswer,
    responses=read_responses(),
)
async def transitions(
    services: Shared, reader: Reader, parameters: Annotated[TransitionParameters, Query()]
) -> Response:
    """Moves in [from, to). The moves out of a value sum to its departures."""

    def query(connection: Connection, moment: Moment) -> Transitions:
        return lifecycle.transitions(
            connection,
            moment,
            classification=parameters.classification,
            start=parameters.from_ or EARLIEST,
            end=parameters.to or moment.as_of,
        )

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    seen = answered.value
    content = {
        "classification": seen.classification.value,
        "from": parameters.from_,
        "to": parameters.to or answered.moment.as_of,
        "transitions": [
            {"from": row.from_value, "to": row.to_value, "moves": row.moves} for row in seen.moves
        ],
        "departures": [
            {"value": row.value, "departures": row.departures} for row in seen.departures
        ],
        "stable_to_lost": seen.stable_to_lost,
        "parked": answered.parked,
        **answered.times(),
    }
    return json_response(content)


@router.get(
    "/durations",
    summary="Time spent in each value",
    response_model=reads.DurationsAnswer,
    responses=read_responses(),
)
async def durations(
    services: Shared, reader: Reader, parameters: Annotated[LifecycleParameters, Query()]
) -> Response:
    """In days. A period that lasts is counted as open; mean and median are of the closed ones."""

    def query(connection: Connection, moment: Moment) -> list[Duration]:
        return lifecycle.durations(connection, moment, classification=parameters.classification)

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    content = {
        "classification": parameters.classification.value,
        "durations": list(map(_duration, answered.value)),
        "parked": answered.parked,
        **answered.times(),
    }
    return json_response(content)


def _duration(row: Duration) -> dict[str, Any]:
    return {
        "value": row.value,
        "periods": row.periods,
        "closed": row.closed,
        "open": row.open,
        "mean_days": number(row.mean_days),
        "median_days": number(row.median_days),
    }
