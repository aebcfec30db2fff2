"""Caring for customers: who may need something again, and what keeping them may cost."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from api.openapi import link_header, read_responses
from api.routes.lifecycle import MODEL, analysis, definition
from api.routes.reading import Reader, Shared, page_arguments, page_response
from api.routes.value import VALUATIONS
from api.schemas import care as shapes
from api.schemas.parameters import Flag, Instant, ListParameters, ReadParameters, money, number
from domain.values import AlertKind
from projections.lifecycle.needs import Need, needs
from projections.lifecycle.retention import Kept, Retention, retention
from projections.lifecycle.value.worth import Horizon, expected_revenue
from projections.reading import Connection, Moment, Page

router = APIRouter(prefix="/v1", tags=["care"])

_YEAR = Horizon(months=12, yearly_discount=0.0, weeks=52)


class NeedParameters(ListParameters):
    sort: Annotated[str, Field(pattern="^-?due_at$")] = "due_at"
    due_before: Annotated[
        Instant | None, Field(description="Up to this time, future or past; `as_of` if missing.")
    ] = None
    kind: AlertKind | None = None
    alerted: Annotated[Flag | None, Field(description="Whether a policy told it.")] = None

    def filters(self) -> dict[str, Any]:
        return {k: v for k, v in super().filters().items() if k != "due_before"}


class RetentionParameters(ReadParameters):
    planned: Annotated[
        Flag | None,
        Field(description="Those with a plan, or those at risk without one; both if missing."),
    ] = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    offset: Annotated[int, Field(ge=0, le=100_000_000)] = 0


@router.get(
    "/demand-alerts",
    summary="Who is likely to need something again",
    response_model=shapes.NeedsAnswer,
    responses=link_header() | read_responses(),
)
async def demand_alerts(
    request: Request,
    services: Shared,
    reader: Reader,
    parameters: Annotated[NeedParameters, Query()],
) -> Response:
    """By the buying cycle and by the stock, of customers who are not lost, the earliest first.
    One-off business has no cycle. Search looks at the kind."""
    arguments = page_arguments(services, parameters, request.url.path)

    def query(connection: Connection, moment: Moment) -> Page[Need]:
        return needs(
            connection,
            moment,
            due_before=parameters.due_before or moment.as_of,
            filters=parameters.filters(),
            **arguments,
        )

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    items = map(_need, answered.value.rows)
    more = {"definition": definition(services, "path")}
    return page_response(services, request, parameters, answered, items, more)


def _need(row: Need) -> dict[str, Any]:
    return {
        "customer_id": row.customer_id,
        "kind": row.kind,
        "due_at": row.due_at,
        "due": row.due,
        "alerted_at": row.alerted_at,
        "rule": row.rule,
        "repeat_type": row.repeat_type,
        "cycle_days": row.cycle_days,
        "last_purchase_at": row.last_purchase_at,
        "stock": number(row.stock),
        "stock_alert_below": number(row.stock_alert_below),
        "stock_at": row.stock_at,
    }


@router.get(
    "/retention",
    summary="Value at stake against what keeping customers may cost",
    response_model=shapes.RetentionAnswer,
    responses=read_responses(),
)
async def read_retention(
    services: Shared, reader: Reader, parameters: Annotated[RetentionParameters, Query()]
) -> Response:
    """Customers with a plan of keeping them, and those whose level is declining or problem, the
    highest past revenue first. Amounts in the currency asked for alone."""
    currency = parameters.currency or services.settings.currency

    def query(connection: Connection, moment: Moment) -> Any:
        seen = retention(
            connection,
            moment,
            currency=currency,
            planned=parameters.planned,
            limit=parameters.limit,
            offset=parameters.offset,
        )
        valuation = VALUATIONS.valuation(
            connection,
            moment,
            currency=currency,
            timezone=services.settings.zone,
            horizon=_YEAR,
        )
        return seen, expected_revenue(valuation, [row.customer_id for row in seen.customers])

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    seen: Retention = answered.value[0]
    expected = answered.value[1]
    content = {
        "currency": currency,
        "offset": parameters.offset,
        "count": seen.count,
        "past_revenue": money(seen.past_revenue, currency),
        "limit": money(seen.limit, currency),
        "spent": money(seen.spent, currency),
        "customers": [_kept(row, expected[row.customer_id], currency) for row in seen.customers],
    }
    return analysis(services, answered, content, "levels")


def _kept(row: Kept, expected: Any, currency: str) -> dict[str, Any]:
    at_stake = row.past_revenue if expected is None else expected
    return {
        "customer_id": row.customer_id,
        "type": row.type,
        "level": row.level,
        "lost_at": row.lost_at,
        "cause": row.cause,
        "worth_keeping": row.worth_keeping,
        "social_effect": row.social_effect,
        "limit": None if row.limit is None else money(row.limit, currency),
        "spent": money(row.spent, currency),
        "remaining": None if row.remaining is None else money(row.remaining, currency),
        "past_revenue": money(row.past_revenue, currency),
        "expected_revenue": None if expected is None else money(expected, currency),
        "value_at_stake": money(at_stake, currency),
        "over_value": row.limit is not None and row.limit > at_stake,
    }
