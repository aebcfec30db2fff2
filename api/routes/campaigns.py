"""Campaigns: their commands, single reads, lists, and what they brought."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from api.commands import Command
from api.openapi import link_header, read_responses, version_header
from api.routes.reading import Reader, Shared, found, json_response, page_arguments, page_response
from api.schemas import reads
from api.schemas.campaigns import BookCost, PlanCampaign
from api.schemas.fields import PlainCommand
from api.schemas.parameters import (
    ListParameters,
    ReadParameters,
    Term,
    external,
    money,
    number,
    sorts,
)
from api.tokens import Scope
from domain.application import CRM
from domain.values import CampaignStatus
from projections import attribution
from projections.attribution import CampaignPerformance, CampaignRow, Model
from projections.reading import Connection, Moment

MODEL = "attribution"
ONE = "/v1/campaigns/{id}"

COMMANDS = (
    Command(
        "/v1/campaigns", PlanCampaign, CRM.plan_campaign, "Plan a campaign", creates="campaign"
    ),
    Command(f"{ONE}/submit", PlainCommand, CRM.submit_campaign, "Submit for approval"),
    Command(
        f"{ONE}/approve",
        PlainCommand,
        CRM.approve_campaign,
        "Approve",
        approver="by",
        scope=Scope.APPROVE,
    ),
    Command(f"{ONE}/reject", PlainCommand, CRM.reject_campaign, "Reject", scope=Scope.APPROVE),
    Command(f"{ONE}/start", PlainCommand, CRM.start_campaign, "Start, after approval"),
    Command(f"{ONE}/costs", BookCost, CRM.book_cost, "Book a cost", keyed="reference"),
    Command(f"{ONE}/complete", PlainCommand, CRM.complete_campaign, "Complete"),
    Command(f"{ONE}/cancel", PlainCommand, CRM.cancel_campaign, "Cancel"),
)

router = APIRouter(prefix="/v1/campaigns", tags=["campaigns"])


class CampaignList(ListParameters):
    sort: Annotated[str, Field(pattern=sorts(attribution.SORTS))] = "id"
    status: CampaignStatus | None = None
    channel: Term | None = None
    region: Term | None = None
    name: Term | None = None
    external_source: Term | None = None
    external_id: Term | None = None


class Performance(ReadParameters):
    model: Annotated[Model, Field(description="How won amounts go to touches.")] = Model.LAST


@router.get(
    "",
    summary="List campaigns",
    response_model=reads.ListAnswer[reads.Campaign],
    responses=link_header() | read_responses(),
)
async def list_campaigns(
    request: Request,
    services: Shared,
    reader: Reader,
    parameters: Annotated[CampaignList, Query()],
) -> Response:
    arguments = page_arguments(services, parameters, request.url.path)
    filters = parameters.filters()

    def query(connection: Connection, moment: Moment) -> Any:
        return attribution.campaigns(connection, moment, filters=filters, **arguments)

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    return page_response(
        services, request, parameters, answered, map(_campaign, answered.value.rows)
    )


@router.get(
    "/performance",
    summary="Plan against actual",
    response_model=reads.PerformanceAnswer,
    responses=read_responses(),
)
async def performance(
    services: Shared, reader: Reader, parameters: Annotated[Performance, Query()]
) -> Response:
    """Every campaign's cost, responses, deals, contracts and return, in its budget's currency."""

    def query(connection: Connection, moment: Moment) -> Any:
        return (
            attribution.performance(connection, moment, model=parameters.model),
            attribution.annual_plan(connection, moment),
        )

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    results, years = answered.value
    content = {
        "model": parameters.model.value,
        "campaigns": list(map(_performance, results)),
        "annual_plan": [
            {
                "year": year.year,
                "campaigns": year.campaigns,
                "budget": money(year.budget, year.currency),
                "cost": money(year.cost, year.currency),
            }
            for year in years
        ],
        "parked": answered.parked,
        **answered.times(),
    }
    return json_response(content)


@router.get(
    "/{id}",
    summary="Read a campaign",
    response_model=reads.CampaignAnswer,
    responses=version_header() | read_responses(404),
)
async def read_campaign(
    id: UUID, services: Shared, reader: Reader, parameters: Annotated[ReadParameters, Query()]
) -> Response:
    def query(connection: Connection, moment: Moment) -> Any:
        return attribution.campaign(connection, id, moment)

    answered = await services.reads.ask(
        [MODEL], parameters.question(), query, key=id, partition_key=id
    )
    campaign: CampaignRow = found(answered.value, "campaign", id)
    return json_response({**_campaign(campaign), **answered.times()}, version=campaign.version)


def _campaign(row: CampaignRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "channel": row.channel,
        "region": row.region,
        "status": row.status,
        "starts_on": row.starts_on,
        "ends_on": row.ends_on,
        "budget": money(row.budget, row.currency),
        "cost": money(row.cost, row.currency),
        "external_id": external(row.external_source, row.external_id),
        "planned_at": row.planned_at,
        "version": row.version,
    }


def _performance(row: CampaignPerformance) -> dict[str, Any]:
    return {
        "campaign_id": row.campaign_id,
        "name": row.name,
        "channel": row.channel,
        "region": row.region,
        "status": row.status,
        "budget": money(row.budget, row.currency),
        "cost": money(row.cost, row.currency),
        "remaining": money(row.remaining, row.currency),
        "responses": row.responses,
        "deals": row.deals,
        "contracts": row.contracts,
        "contract_amount": money(row.contract_amount, row.currency),
        "credit": money(row.credit, row.currency),
        "return": number(row.return_),
        "other_currencies": [
            {"deals": other.count, "amount": money(other.amount, other.currency)}
            for other in row.other_currencies
        ],
    }
