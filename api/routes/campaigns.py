"""Campaigns: their commands, single reads, lists, and what they brought."""

from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from api.commands import Command
from api.openapi import link_header, read_responses, version_header
from api.routes.attribution import FITS, ModelParameter, asked, closing, others
from api.routes.reading import Reader, Shared, found, json_response, page_arguments, page_response
from api.schemas import attribution as schemas
from api.schemas import reads
from api.schemas.campaigns import BookCost, PlanCampaign, RecordAttendance
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
from domain.values import MONEY_LIMIT, CampaignStatus
from projections import attribution
from projections.attribution import (
    Aims,
    CampaignPerformance,
    CampaignRow,
    Model,
    Outcome,
    Period,
    Reach,
    Trait,
)
from projections.lifecycle import VALUES, Classification
from projections.reading import MAX_LIMIT, Connection, Moment

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
    Command(f"{ONE}/attendance", RecordAttendance, CRM.record_attendance, "Record who came"),
    Command(f"{ONE}/complete", PlainCommand, CRM.complete_campaign, "Complete"),
    Command(f"{ONE}/cancel", PlainCommand, CRM.cancel_campaign, "Cancel"),
)

router = APIRouter(prefix="/v1/campaigns", tags=["campaigns"])


class CampaignList(ListParameters):
    sort: Annotated[str, Field(pattern=sorts(attribution.SORTS))] = "id"
    status: CampaignStatus | None = None
    channel: Term | None = None
    region: Term | None = None
    product: Term | None = None
    name: Term | None = None
    external_source: Term | None = None
    external_id: Term | None = None


class Performance(ReadParameters):
    model: ModelParameter = Model.LAST


class EffectParameters(Performance):
    period: Annotated[Period, Field(description="That campaigns started in.")] = Period.QUARTER


class RankingParameters(Performance):
    by: Annotated[
        Trait,
        Field(description="`method` is the channel, `month` the one of the year it started in."),
    ] = Trait.PRODUCT
    product: Annotated[Term | None, Field(description="Only campaigns for this product.")] = None
    region: Annotated[Term | None, Field(description="Only campaigns in this region.")] = None


def _volume(value: str) -> Decimal:
    amount = Decimal(value)
    if amount >= MONEY_LIMIT:
        raise ValueError("is too large")
    return amount


class InvitationParameters(ReadParameters):
    level: Annotated[
        str | None,
        Field(
            pattern=f"^({'|'.join(VALUES[Classification.LEVEL])})$",
            description="Level of the customers; any if missing.",
        ),
    ] = None
    min_volume: Annotated[
        Annotated[str, Field(pattern=r"^[0-9]{1,15}(\.[0-9]{1,4})?$")],
        Field(description="What they bought at least, in `currency`."),
    ] = "0"
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = 100


@router.get(
    "",
    summary="List campaigns",
    response_model=reads.ListAnswer[schemas.Campaign],
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
    response_model=schemas.PerformanceAnswer,
    responses=read_responses(),
)
async def performance(
    services: Shared, reader: Reader, parameters: Annotated[Performance, Query()]
) -> Response:
    """Every campaign's cost, attendees, responses, deals, contracts and return, each beside what
    was planned, in its budget's currency."""
    question = asked(services, parameters)

    def query(connection: Connection, moment: Moment) -> Any:
        return (
            attribution.performance(
                connection, moment, model=parameters.model, asked=question, fits=FITS
            ),
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
        **closing(services, answered),
    }
    return json_response(content)


@router.get(
    "/effect",
    summary="What campaigns brought, by period",
    response_model=schemas.EffectAnswer,
    responses=read_responses(),
)
async def effect(
    services: Shared, reader: Reader, parameters: Annotated[EffectParameters, Query()]
) -> Response:
    """Campaigns that took place, deals and contracts for each, and the region, method and size
    band with the best return. Money of campaigns whose budget is in `currency`."""
    question = asked(services, parameters)

    def query(connection: Connection, moment: Moment) -> Any:
        return attribution.effect_by_period(
            attribution.performance(
                connection, moment, model=parameters.model, asked=question, fits=FITS
            ),
            period=parameters.period,
            currency=question.currency,
            definition=question.definition,
        )

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    content = {
        "model": parameters.model.value,
        "period": parameters.period.value,
        "currency": question.currency,
        "periods": [
            {
                "from": row.start,
                "to": row.end,
                **_outcome(row.outcome, question.currency),
                "best": {trait.value: value for trait, value in row.best.items()},
            }
            for row in answered.value
        ],
        **closing(services, answered),
    }
    return json_response(content)


@router.get(
    "/ranking",
    summary="Products, places, times, methods or sizes by return",
    response_model=schemas.RankingAnswer,
    responses=read_responses(),
)
async def ranking(
    services: Shared, reader: Reader, parameters: Annotated[RankingParameters, Query()]
) -> Response:
    """What to promote, where and when, by what campaigns that took place have brought."""
    question = asked(services, parameters)

    def query(connection: Connection, moment: Moment) -> Any:
        found = attribution.performance(
            connection, moment, model=parameters.model, asked=question, fits=FITS
        )
        wanted = [
            one
            for one in found
            if parameters.product in (None, one.product) and parameters.region in (None, one.region)
        ]
        return attribution.ranking(
            wanted,
            by=parameters.by,
            currency=question.currency,
            definition=question.definition,
        )

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    content = {
        "model": parameters.model.value,
        "by": parameters.by.value,
        "currency": question.currency,
        "ranking": [
            {
                "rank": row.rank,
                "value": row.value,
                **_outcome(row.outcome, question.currency),
            }
            for row in answered.value
        ],
        **closing(services, answered),
    }
    return json_response(content)


@router.get(
    "/invitations",
    summary="Customers to invite, by level and volume",
    response_model=schemas.InvitationsAnswer,
    responses=read_responses(),
)
async def invitations(
    services: Shared, reader: Reader, parameters: Annotated[InvitationParameters, Query()]
) -> Response:
    """The largest first. The level is `none` outside a relationship."""
    question = asked(services, parameters)
    least = _volume(parameters.min_volume)

    def query(connection: Connection, moment: Moment) -> Any:
        return attribution.invitations(
            connection,
            moment,
            level=parameters.level,
            min_volume=least,
            currency=question.currency,
            limit=parameters.limit,
        )

    answered = await services.reads.ask(["lifecycle"], parameters.question(), query)
    customers, invited = answered.value
    content = {
        "level": parameters.level,
        "currency": question.currency,
        "customers": customers,
        "invitations": [
            {
                "customer_id": one.customer_id,
                "level": one.level,
                "volume": money(one.volume, question.currency),
            }
            for one in invited
        ],
        **closing(services, answered),
    }
    return json_response(content)


@router.get(
    "/{id}/effect",
    summary="What a campaign has done to the customers it reached",
    response_model=schemas.CampaignEffectAnswer,
    responses=read_responses(404),
)
async def campaign_effect(
    id: UUID, services: Shared, reader: Reader, parameters: Annotated[Performance, Query()]
) -> Response:
    """Coverage of its region, growth of the reached customers' contracts, week by week while it
    runs, and what it earned for its cost; in its budget's currency."""
    question = asked(services, parameters)

    def query(connection: Connection, moment: Moment) -> tuple[CampaignPerformance, Reach] | None:
        one = attribution.performance(
            connection,
            moment,
            model=parameters.model,
            asked=question,
            fits=FITS,
            campaign_id=id,
        )
        if not one:
            return None
        return one[0], attribution.reach(connection, moment, one[0], services.settings.zone)

    answered = await services.reads.ask([MODEL, "customers"], parameters.question(), query)
    campaign, seen = found(answered.value, "campaign", id)
    in_currency = _in(campaign.currency)
    content = {
        "campaign_id": id,
        "model": parameters.model.value,
        "reached": seen.reached,
        "customers": seen.customers,
        "coverage": number(seen.coverage),
        "sales": in_currency(seen.sales),
        "sales_before": in_currency(seen.before),
        "growth": number(seen.growth),
        "cost": in_currency(campaign.cost),
        "credit": in_currency(campaign.credit),
        "return": number(campaign.return_),
        "output_over_input": number(campaign.output_over_input),
        "weeks": [
            {
                "from": week.start,
                "to": week.end,
                "responses": week.responses,
                "deals": week.deals,
                "contracts": week.contracts,
                "amount": in_currency(week.amount),
            }
            for week in seen.weeks
        ],
        **closing(services, answered),
    }
    return json_response(content)


@router.get(
    "/{id}",
    summary="Read a campaign",
    response_model=schemas.CampaignAnswer,
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
    plan = Aims(
        row.planned_attendees,
        row.planned_responses,
        row.planned_deals,
        row.planned_contracts,
        row.planned_revenue,
    )
    return {
        "id": row.id,
        "name": row.name,
        "channel": row.channel,
        "region": row.region,
        "product": row.product,
        "status": row.status,
        "starts_on": row.starts_on,
        "ends_on": row.ends_on,
        "budget": money(row.budget, row.currency),
        "cost": money(row.cost, row.currency),
        "plan": _plan(plan, row.currency),
        "attendees": row.attendees,
        "external_id": external(row.external_source, row.external_id),
        "planned_at": row.planned_at,
        "version": row.version,
    }


def _plan(plan: Aims, currency: str) -> dict[str, Any]:
    return {
        "attendees": plan.attendees,
        "responses": plan.responses,
        "deals": plan.deals,
        "contracts": plan.contracts,
        "revenue": None if plan.revenue is None else money(plan.revenue, currency),
    }


def _performance(row: CampaignPerformance) -> dict[str, Any]:
    in_currency = _in(row.currency)
    return {
        "campaign_id": row.campaign_id,
        "name": row.name,
        "channel": row.channel,
        "region": row.region,
        "product": row.product,
        "status": row.status,
        "budget": in_currency(row.budget),
        "cost": in_currency(row.cost),
        "remaining": in_currency(row.remaining),
        "attendees": row.attendees,
        "responses": row.responses,
        "deals": row.deals,
        "contracts": row.contracts,
        "contract_amount": in_currency(row.contract_amount),
        "credit": in_currency(row.credit),
        "return": number(row.return_),
        "output_over_input": number(row.output_over_input),
        "plan": _plan(row.plan, row.currency),
        "differences": {
            name: in_currency(value) if isinstance(value, Decimal) else value
            for name, value in row.differences.items()
        },
        "other_currencies": others(row.other_currencies),
    }


def _outcome(outcome: Outcome, currency: str) -> dict[str, Any]:
    return {
        "campaigns": outcome.campaigns,
        "deals": outcome.deals,
        "contracts": outcome.contracts,
        "deals_per_campaign": number(outcome.deals_per_campaign),
        "contracts_per_campaign": number(outcome.contracts_per_campaign),
        "cost": money(outcome.cost, currency),
        "credit": money(outcome.credit, currency),
        "return": number(outcome.return_),
        "output_over_input": number(outcome.output_over_input),
    }


def _in(currency: str) -> Callable[[Decimal], dict[str, str]]:
    return lambda amount: money(amount, currency)
