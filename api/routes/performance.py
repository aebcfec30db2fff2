"""What marketing and sales move, and whether profit grows with sales."""

from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from api.errors import InvalidRequest
from api.openapi import read_responses
from api.routes.lifecycle import MODEL, PeriodParameters, analysis, period, purchases_beside
from api.routes.reading import Reader, Shared
from api.schemas import care as shapes
from api.schemas.parameters import Day, ReadParameters, money, number
from projections.lifecycle.growth import Growth, Result, growth
from projections.lifecycle.performance import Origin, Step, origins, steps
from projections.reading import Connection, Moment

router = APIRouter(prefix="/v1", tags=["performance"])

_MOVED_BY = {"prospect": "marketing", "opportunity": "sales"}


class GrowthParameters(ReadParameters):
    from_: Annotated[Day, Field(alias="from", description="First day of the period.")]
    to: Annotated[Day, Field(description="First day after it.")]
    before_from: Annotated[
        Day | None,
        Field(description="First day of the period it is compared with; as long before by default"),
    ] = None
    before_to: Annotated[
        Day | None, Field(description="First day after that one; `from` by default.")
    ] = None

    def periods(self) -> tuple[tuple[date, date], tuple[date, date]]:
        """The earlier and the later period. Raises InvalidRequest."""
        if self.to <= self.from_:
            raise InvalidRequest.of_parameter("to", "is not after `from`")
        end = self.before_to or self.from_
        try:
            start = self.before_from or end - (self.to - self.from_)
        except OverflowError:
            raise InvalidRequest.of_parameter("from", "is too long before `to`") from None
        if end <= start:
            raise InvalidRequest.of_parameter("before_to", "is not after `before_from`")
        return (start, end), (self.from_, self.to)


@router.get(
    "/performance",
    summary="What marketing and sales move",
    response_model=shapes.PerformanceAnswer,
    responses=read_responses(),
)
async def performance(
    services: Shared, reader: Reader, parameters: Annotated[PeriodParameters, Query()]
) -> Response:
    """Of customers that came, and deals opened, in [from, to): how many moved on and how long that
    took, beside the revenue."""
    currency = parameters.currency or services.settings.currency

    def query(connection: Connection, moment: Moment) -> tuple[list[Step], list[Origin]]:
        start, end = period(parameters.from_, parameters.to, moment)
        return (
            steps(connection, moment, start=start, end=end),
            origins(connection, moment, start=start, end=end, currency=currency),
        )

    answered = await services.reads.ask([MODEL, "funnel"], parameters.question(), query)
    content = {
        "from": parameters.from_,
        "to": parameters.to or answered.moment.as_of,
        "currency": currency,
        "steps": [
            {
                "value": row.value,
                "moved_by": _MOVED_BY[row.value],
                "customers": row.customers,
                "moved": row.moved,
                "rate": number(row.rate),
                "median_days": number(row.median_days),
            }
            for row in answered.value[0]
        ],
        "origins": [_origin(row, currency) for row in answered.value[1]],
    }
    return analysis(services, answered, content, "path")


def _origin(row: Origin, currency: str) -> dict[str, Any]:
    return {
        "origin": row.origin,
        "deals": row.deals,
        "won": row.won,
        "lost": row.lost,
        "order_rate": number(row.order_rate),
        "win_rate": number(row.win_rate),
        "median_days": number(row.median_days),
        "revenue": money(row.revenue, currency),
        "other_currencies": purchases_beside(row.other_currencies),
    }


@router.get(
    "/growth",
    summary="Growth of sales against growth of profit",
    response_model=shapes.GrowthAnswer,
    responses=read_responses(),
)
async def read_growth(
    services: Shared, reader: Reader, parameters: Annotated[GrowthParameters, Query()]
) -> Response:
    """Orders and contracts of the days [from, to) against those of the period before. Flagged where
    sales of known cost grew and profit did not."""
    currency = parameters.currency or services.settings.currency
    before, after = parameters.periods()

    def query(connection: Connection, moment: Moment) -> Growth:
        return growth(
            connection,
            moment,
            before=before,
            after=after,
            currency=currency,
            timezone=services.settings.zone,
        )

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    seen = answered.value
    content = {
        "currency": currency,
        "before": _result(seen.before, currency),
        "after": _result(seen.after, currency),
        "sales_growth": number(seen.sales),
        "profit_growth": number(seen.profit),
        "lag": number(seen.lag),
        "flagged": seen.flagged,
        "other_currencies": purchases_beside(seen.other_currencies),
    }
    return analysis(services, answered, content, "path")


def _result(row: Result, currency: str) -> dict[str, Any]:
    return {
        "from": row.start,
        "to": row.end,
        "purchases": row.purchases,
        "sales": money(row.sales, currency),
        "cost": money(row.cost, currency),
        "profit": money(row.profit, currency),
        "uncosted": money(row.uncosted, currency),
        "raised_per_cost": number(row.raised_per_cost),
    }
