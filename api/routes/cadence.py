"""Deals whose next visit is overdue."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from api.openapi import link_header, read_responses
from api.reads import Answered
from api.routes.funnel import revision
from api.routes.reading import Reader, Shared, page_arguments, page_response
from api.schemas import forecast as shapes
from api.schemas.parameters import ListParameters, Term, money, number, sorts
from projections import funnel
from projections.funnel import Overdue
from projections.reading import Connection, Moment, Page

MODEL = "funnel"

router = APIRouter(prefix="/v1/opportunities", tags=["opportunities"])


class OverdueList(ListParameters):
    sort: Annotated[str, Field(pattern=sorts(tuple(funnel.OVERDUE_SORTS)))] = "due_at"
    pipeline_id: UUID | None = None
    stage: Term | None = None
    owner: Term | None = None
    customer_id: UUID | None = None


@router.get(
    "/overdue",
    summary="List deals whose next visit is overdue",
    response_model=shapes.OverdueAnswer,
    responses=link_header() | read_responses(),
)
async def list_overdue(
    request: Request, services: Shared, reader: Reader, parameters: Annotated[OverdueList, Query()]
) -> Response:
    """Open deals in stages with a cadence. An activity of the kind `visit` keeps it; the next one
    is due a week ÷ visits a week after the last one in the stage, or after the entry."""
    arguments = page_arguments(services, parameters, request.url.path)

    def query(connection: Connection, moment: Moment) -> tuple[Page[Overdue], int | None]:
        held = None
        if parameters.pipeline_id is not None:
            held = funnel.revision_of(connection, parameters.pipeline_id, moment)
        page = funnel.overdue(connection, moment, filters=parameters.filters(), **arguments)
        return page, held

    asked = await services.reads.ask([MODEL], parameters.question(), query)
    page, held = asked.value
    answered = Answered(page, asked.position, asked.moment, asked.parked)
    items = map(_overdue, page.rows)
    more = {"definition": revision(held)}
    return page_response(services, request, parameters, answered, items, more)


def _overdue(row: Overdue) -> dict[str, Any]:
    return {
        "opportunity_id": row.opportunity_id,
        "customer_id": row.customer_id,
        "name": row.name,
        "owner": row.owner,
        "stage": row.stage,
        "visits_per_week": row.visits_per_week,
        "entered_at": row.entered_at,
        "last_visit_at": row.last_visit_at,
        "due_at": row.due_at,
        "days_overdue": number(row.days_overdue),
        "amount": money(row.amount, row.currency),
    }
