"""Where customers stand in their lifecycle, how they moved and how long they stayed."""

from datetime import datetime
from itertools import pairwise
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator, Field
from starlette.responses import Response

from api.errors import InvalidRequest
from api.openapi import link_header, read_responses
from api.reads import Answered
from api.routes.reading import (
    Reader,
    Shared,
    found,
    json_response,
    page_arguments,
    page_response,
)
from api.schemas import lifecycle as shapes
from api.schemas.fields import EARLIEST
from api.schemas.parameters import Flag, Instant, ListParameters, ReadParameters, money, number
from api.services import Services
from domain.values import ChurnCause
from projections import lifecycle
from projections.lifecycle import (
    ABSENT,
    VALUES,
    Classification,
    Cohort,
    Cohorts,
    CohortsBy,
    Distribution,
    Duration,
    Flows,
    Loss,
    Standing,
    Transitions,
)
from projections.reading import Connection, CurrencySum, Moment, Page

MODEL = "lifecycle"

router = APIRouter(prefix="/v1", tags=["lifecycle"])

From = Annotated[Instant | None, Field(alias="from", description="From the beginning if missing.")]
To = Annotated[Instant | None, Field(description="Before this time; `as_of` if missing.")]


class LifecycleParameters(ReadParameters):
    classification: Classification = Classification.TYPE


class PeriodParameters(ReadParameters):
    from_: From = None
    to: To = None


class TransitionParameters(LifecycleParameters, PeriodParameters):
    pass


class CohortParameters(ReadParameters):
    by: Annotated[CohortsBy, Field(description="What a customer's cohort is the month of.")] = (
        CohortsBy.FIRST_PURCHASE
    )
    months: Annotated[int, Field(ge=1, le=120, description="Cohorts of the last so many.")] = 12


def _rising(dates: list[datetime]) -> list[datetime]:
    if any(later <= earlier for earlier, later in pairwise(dates)):
        raise ValueError("is not in rising order")
    return dates


class FlowParameters(LifecycleParameters):
    from_: Annotated[Instant, Field(alias="from", description="The first date.")]
    to: Annotated[Instant | None, Field(description="The last date; `as_of` if missing.")] = None
    between: Annotated[
        list[Instant],
        Field(max_length=10, description="Further dates between them, rising."),
        AfterValidator(_rising),
    ] = []  # noqa: RUF012  (pydantic copies it)


class LossParameters(ListParameters):
    sort: Annotated[str, Field(pattern="^-?lost_at$")] = "-lost_at"
    from_: From = None
    to: To = None
    cause: ChurnCause | None = None
    active: Annotated[Flag | None, Field(description="Told by somebody, or by a silence.")] = None

    def filters(self) -> dict[str, Any]:
        return {k: v for k, v in super().filters().items() if k not in ("from_", "to")}


def definition(services: Services, *parts: str) -> dict[str, str]:
    """The ids of these parts of the definitions in force, as answers name them."""
    held = services.definitions.parts()
    return {part: held[part].id for part in parts}


def period(
    start: datetime | None, end: datetime | None, moment: Moment
) -> tuple[datetime, datetime]:
    """[from, to) of a question. Raises InvalidRequest where it ends before it begins."""
    if start is not None and end is not None and end < start:
        raise InvalidRequest.of_parameter("to", "is before `from`")
    return start or EARLIEST, end or moment.as_of


def analysis(
    services: Services, answered: Answered[Any], content: dict[str, Any], *parts: str
) -> Response:
    """An answer that says by which definitions it was made."""
    return json_response(
        {
            **content,
            "definition": definition(services, *parts),
            "parked": answered.parked,
            **answered.times(),
        }
    )


def part_of(classification: Classification) -> str:
    """The part of the definitions that a classification goes by."""
    return "levels" if classification is Classification.LEVEL else "path"


def purchases_beside(rows: list[CurrencySum]) -> list[dict[str, Any]]:
    return [{"purchases": row.count, "amount": money(row.amount, row.currency)} for row in rows]


@router.get(
    "/lifecycle",
    summary="How many customers stand where",
    response_model=shapes.DistributionAnswer,
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
    }
    return analysis(services, answered, content, part_of(parameters.classification))


@router.get(
    "/lifecycle/transitions",
    summary="Moves from value to value",
    response_model=shapes.TransitionsAnswer,
    responses=read_responses(),
)
async def transitions(
    services: Shared, reader: Reader, parameters: Annotated[TransitionParameters, Query()]
) -> Response:
    """Moves in [from, to). The moves out of a value sum to its departures."""

    def query(connection: Connection, moment: Moment) -> Transitions:
        start, end = period(parameters.from_, parameters.to, moment)
        return lifecycle.transitions(
            connection, moment, classification=parameters.classification, start=start, end=end
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
    }
    return analysis(services, answered, content, part_of(parameters.classification))


@router.get(
    "/lifecycle/durations",
    summary="Time spent in each value",
    response_model=shapes.DurationsAnswer,
    responses=read_responses(),
)
async def durations(
    services: Shared, reader: Reader, parameters: Annotated[LifecycleParameters, Query()]
) -> Response:
    """In days. A period that lasts is counted as open: left out of the plain figures, and counted
    as lasting longer than so far in those by Kaplan and Meier."""

    def query(connection: Connection, moment: Moment) -> list[Duration]:
        return lifecycle.durations(connection, moment, classification=parameters.classification)

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    content = {
        "classification": parameters.classification.value,
        "durations": list(map(_duration, answered.value)),
    }
    return analysis(services, answered, content, part_of(parameters.classification))


def _duration(row: Duration) -> dict[str, Any]:
    return {
        "value": row.value,
        "periods": row.periods,
        "closed": row.closed,
        "open": row.open,
        "mean_days": number(row.mean_days),
        "median_days": number(row.median_days),
        "survival_median_days": number(row.survival_median_days),
        "restricted_mean_days": number(row.restricted_mean_days),
        "restricted_to_days": number(row.restricted_to_days),
    }


@router.get(
    "/lifecycle/cohorts",
    summary="What became of the customers of each month",
    response_model=shapes.CohortsAnswer,
    responses=read_responses(),
)
async def cohorts(
    services: Shared, reader: Reader, parameters: Annotated[CohortParameters, Query()]
) -> Response:
    """Customers by the month of their first purchase, or registration: how many bought and were
    still in a relationship in each month since, and the revenue. A purchase in another currency
    makes a customer active; its amount stands beside."""
    currency = parameters.currency or services.settings.currency

    def query(connection: Connection, moment: Moment) -> Cohorts:
        return lifecycle.cohorts(
            connection,
            moment,
            by=parameters.by,
            currency=currency,
            timezone=services.settings.zone,
            months=parameters.months,
        )

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    content = {
        "by": parameters.by.value,
        "currency": currency,
        "cohorts": [_cohort(cohort, currency) for cohort in answered.value.cohorts],
        "other_currencies": purchases_beside(answered.value.other_currencies),
    }
    return analysis(services, answered, content, "path")


def _cohort(cohort: Cohort, currency: str) -> dict[str, Any]:
    return {
        "cohort": cohort.starts,
        "customers": cohort.customers,
        "months": [
            {
                "month": month.month,
                "active": month.active,
                "retained": month.retained,
                "revenue": money(month.revenue, currency),
            }
            for month in cohort.months
        ],
    }


@router.get(
    "/lifecycle/flows",
    summary="Who stood where on two or more dates",
    response_model=shapes.FlowsAnswer,
    responses=read_responses(),
)
async def flows(
    services: Shared, reader: Reader, parameters: Annotated[FlowParameters, Query()]
) -> Response:
    """Nodes and links of a Sankey diagram between the values on the dates."""

    def query(connection: Connection, moment: Moment) -> tuple[list[datetime], Flows]:
        dates = [parameters.from_, *parameters.between, parameters.to or moment.as_of]
        try:
            _rising(dates)
        except ValueError:
            raise InvalidRequest.of_parameter("to", "is not after the other dates") from None
        if dates[-1] > moment.as_of:
            raise InvalidRequest.of_parameter("to", "is after `as_of`")
        return dates, lifecycle.flows(
            connection, moment, classification=parameters.classification, dates=dates
        )

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    dates, seen = answered.value
    content = {
        "classification": parameters.classification.value,
        "dates": dates,
        "values": [ABSENT, *VALUES[parameters.classification]],
        "customers": seen.customers,
        "nodes": [
            {"step": node.step, "value": node.value, "customers": node.customers}
            for node in seen.nodes
        ],
        "links": [
            {"step": link.step, "from": link.source, "to": link.target, "customers": link.customers}
            for link in seen.links
        ],
    }
    return analysis(services, answered, content, part_of(parameters.classification))


@router.get(
    "/lifecycle/losses",
    summary="Which customers were lost, when and why",
    response_model=shapes.LossesAnswer,
    responses=link_header() | read_responses(),
)
async def losses(
    request: Request,
    services: Shared,
    reader: Reader,
    parameters: Annotated[LossParameters, Query()],
) -> Response:
    """In [from, to), newest first. Who was won back and lost again is there twice. Search looks at
    the cause."""
    arguments = page_arguments(services, parameters, request.url.path)

    def query(connection: Connection, moment: Moment) -> Page[Loss]:
        start, end = period(parameters.from_, parameters.to, moment)
        return lifecycle.losses(
            connection, moment, start=start, end=end, filters=parameters.filters(), **arguments
        )

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    items = (
        {
            "customer_id": row.customer_id,
            "lost_at": row.lost_at,
            "cause": row.cause,
            "active": row.active,
            "level": row.level,
            "rule": row.rule,
            "event": row.event,
        }
        for row in answered.value.rows
    )
    more = {"definition": definition(services, "path", "levels")}
    return page_response(services, request, parameters, answered, items, more)


@router.get(
    "/lifecycle/causes",
    summary="Losses and declines by reason",
    response_model=shapes.LossCausesAnswer,
    responses=read_responses(),
)
async def causes(
    services: Shared, reader: Reader, parameters: Annotated[PeriodParameters, Query()]
) -> Response:
    """In [from, to): the losses by what caused them, and the moves to a lower level by the rule
    that found them."""

    def query(connection: Connection, moment: Moment) -> Any:
        start, end = period(parameters.from_, parameters.to, moment)
        return (
            lifecycle.loss_causes(connection, moment, start=start, end=end),
            lifecycle.decline_causes(connection, moment, start=start, end=end),
        )

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    lost, declined = answered.value
    content = {
        "from": parameters.from_,
        "to": parameters.to or answered.moment.as_of,
        "losses": sum(row.losses for row in lost),
        "causes": [
            {
                "cause": row.cause,
                "active": row.active,
                "losses": row.losses,
                "from_stable": row.from_stable,
            }
            for row in lost
        ],
        "declines": [
            {"level": row.level, "rule": row.rule, "moves": row.moves} for row in declined
        ],
    }
    return analysis(services, answered, content, "path", "levels")


@router.get(
    "/lifecycle/strategies",
    summary="How customers of each level are served",
    response_model=shapes.StrategiesAnswer,
    responses=read_responses(),
)
async def strategies(
    services: Shared, reader: Reader, parameters: Annotated[ReadParameters, Query()]
) -> Response:
    """The service strategy of each level, and how many customers it is for."""

    def query(connection: Connection, moment: Moment) -> Distribution:
        return lifecycle.distribution(connection, moment, classification=Classification.LEVEL)

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    counts = {row.value: row.customers for row in answered.value.distribution}
    content = {
        "strategies": [
            {"level": level, "strategy": strategy, "customers": counts[level]}
            for level, strategy in services.definitions.strategies.by_level.items()
        ]
    }
    return analysis(services, answered, content, "strategies", "levels")


@router.get(
    "/customers/{id}/lifecycle",
    summary="Why a customer stands where it does",
    response_model=shapes.CustomerLifecycleAnswer,
    responses=read_responses(404),
)
async def customer_lifecycle(
    id: UUID, services: Shared, reader: Reader, parameters: Annotated[ReadParameters, Query()]
) -> Response:
    """In each classification: the value, since when, and the event, rule and evidence it rests
    on."""

    def query(connection: Connection, moment: Moment) -> list[Standing]:
        return lifecycle.standing(connection, id, moment)

    answered = await services.reads.ask(
        [MODEL], parameters.question(), query, key=id, partition_key=id
    )
    standings = found(answered.value or None, "customer", id)
    level = next(one.value for one in standings if one.classification is Classification.LEVEL)
    content = {
        "customer_id": id,
        "standing": {one.classification.value: _reason(one) for one in standings},
        "strategy": services.definitions.strategies.by_level.get(level),
        "definition": definition(services, "path", "levels", "strategies"),
        **answered.times(),
    }
    return json_response(content)


def _reason(one: Standing) -> dict[str, Any]:
    return {
        "value": one.value,
        "since": one.since,
        "cause": one.cause,
        "rule": one.rule,
        "evidence": one.evidence,
        "event": {"position": one.event, "kind": one.event_kind},
    }
