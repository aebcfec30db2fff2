"""Opportunities (deals): their commands, single reads and lists."""

from datetime import date
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from api.commands import Command
from api.openapi import link_header, read_responses, version_header
from api.routes.reading import Reader, Shared, found, json_response, page_arguments, page_response
from api.schemas import reads
from api.schemas.fields import PlainCommand
from api.schemas.opportunities import (
    BookExpense,
    ChangeAmount,
    ChangeExpectedClose,
    ChangeStage,
    EstimateChance,
    Lose,
    OpenOpportunity,
    RecordActivity,
    Review,
    SignContract,
    Transfer,
)
from api.schemas.parameters import (
    Currency,
    Flag,
    ListParameters,
    ReadParameters,
    Term,
    external,
    money,
    number,
    sorts,
)
from domain.application import CRM
from domain.values import OpportunityStatus
from projections import funnel
from projections.funnel import DealRow, VisitRow
from projections.reading import Connection, Moment

MODEL = "funnel"
ONE = "/v1/opportunities/{id}"

COMMANDS = (
    Command(
        "/v1/opportunities",
        OpenOpportunity,
        CRM.open_opportunity,
        "Open an opportunity",
        creates="opportunity",
    ),
    Command(
        f"{ONE}/stage",
        ChangeStage,
        CRM.change_stage,
        "Move to another stage",
        approver="approver",
    ),
    Command(f"{ONE}/amount", ChangeAmount, CRM.change_amount, "Change the expected amount"),
    Command(
        f"{ONE}/expected-close",
        ChangeExpectedClose,
        CRM.change_expected_close,
        "Change the expected day of closing",
    ),
    Command(f"{ONE}/transfer", Transfer, CRM.transfer, "Transfer to another owner"),
    Command(f"{ONE}/suspend", PlainCommand, CRM.suspend, "Suspend", approver="approver"),
    Command(f"{ONE}/resume", PlainCommand, CRM.resume, "Resume at the same stage"),
    Command(
        f"{ONE}/terminate", PlainCommand, CRM.terminate, "Terminate for ever", approver="approver"
    ),
    Command(f"{ONE}/contract", SignContract, CRM.sign_contract, "Sign the contract: won"),
    Command(f"{ONE}/loss", Lose, CRM.lose, "Record the loss"),
    Command(f"{ONE}/review", Review, CRM.review, "Review"),
    Command(f"{ONE}/chance", EstimateChance, CRM.estimate_chance, "Estimate the chance to win"),
    Command(f"{ONE}/activities", RecordActivity, CRM.record_activity, "Record an activity"),
    Command(f"{ONE}/expenses", BookExpense, CRM.book_expense, "Book an expense"),
    Command(f"{ONE}/close", PlainCommand, CRM.close_opportunity, "Close, after the review"),
    Command(f"{ONE}/archive", PlainCommand, CRM.archive_opportunity, "Archive, after closing"),
    Command(f"{ONE}/purge", PlainCommand, CRM.purge_opportunity, "Purge, after archiving"),
)

router = APIRouter(prefix="/v1/opportunities", tags=["opportunities"])


class OpportunityList(ListParameters):
    """`currency` is a filter here."""

    sort: Annotated[str, Field(pattern=sorts(funnel.SORTS))] = "id"
    customer_id: UUID | None = None
    pipeline_id: UUID | None = None
    campaign_id: UUID | None = None
    status: OpportunityStatus | None = None
    stage: Term | None = None
    owner: Term | None = None
    name: Term | None = None
    competitor: Term | None = None
    closed: Flag | None = None
    archived: Flag | None = None
    external_source: Term | None = None
    external_id: Term | None = None
    currency: Currency | None = None

    def filters(self) -> dict[str, Any]:
        found = super().filters()
        return found if self.currency is None else {**found, "currency": self.currency}

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "currency": self.currency}


@router.get(
    "",
    summary="List opportunities",
    response_model=reads.ListAnswer[reads.Opportunity],
    responses=link_header() | read_responses(),
)
async def list_opportunities(
    request: Request,
    services: Shared,
    reader: Reader,
    parameters: Annotated[OpportunityList, Query()],
) -> Response:
    arguments = page_arguments(services, parameters, request.url.path)
    filters = parameters.filters()

    def query(connection: Connection, moment: Moment) -> Any:
        return funnel.deals(connection, moment, filters=filters, **arguments)

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    return page_response(services, request, parameters, answered, map(_deal, answered.value.rows))


@router.get(
    "/{id}",
    summary="Read an opportunity",
    response_model=reads.OpportunityAnswer,
    responses=version_header() | read_responses(404),
)
async def read_opportunity(
    id: UUID, services: Shared, reader: Reader, parameters: Annotated[ReadParameters, Query()]
) -> Response:
    """With its stays in the stages so far."""

    def query(connection: Connection, moment: Moment) -> Any:
        return funnel.deal(connection, id, moment), funnel.visits(connection, id, moment)

    partition_key = await services.reads.partition_key(id)
    answered = await services.reads.ask(
        [MODEL], parameters.question(), query, key=id, partition_key=partition_key
    )
    row, visits = answered.value
    deal: DealRow = found(row, "opportunity", id)
    content = {**_deal(deal), "visits": list(map(_visit, visits)), **answered.times()}
    return json_response(content, version=deal.version)


def _deal(row: DealRow) -> dict[str, Any]:
    won = row.won_amount
    signed: date | None = row.signed_on
    return {
        "id": row.id,
        "customer_id": row.customer_id,
        "name": row.name,
        "pipeline_id": row.pipeline_id,
        "pipeline_revision": row.revision,
        "stage": row.stage,
        "entered_at": row.entered_at,
        "status": row.status,
        "amount": money(row.amount, row.currency),
        "expected_close": row.expected_close,
        "owner": row.owner,
        "campaign_id": row.campaign_id,
        "referred_by": row.referred_by,
        "external_id": external(row.external_source, row.external_id),
        "chance": number(row.chance),
        "won_amount": None if won is None else money(won, row.currency),
        "signed_on": signed,
        "lost_cause": row.lost_cause,
        "competitor": row.competitor,
        "reviewed": row.reviewed,
        "closed": row.closed,
        "archived": row.archived,
        "purged": row.purged,
        "opened_at": row.opened_at,
        "version": row.version,
    }


def _visit(row: VisitRow) -> dict[str, Any]:
    return {
        "visit": row.visit,
        "stage": row.stage,
        "revision": row.revision,
        "entered_at": row.entered_at,
        "left_at": row.left_at,
        "ended": row.ended,
    }
