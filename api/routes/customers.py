"""Customers: their commands, single reads and lists."""

from collections.abc import Callable
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from api.commands import Command
from api.openapi import link_header, read_responses, version_header
from api.routes.reading import (
    Reader,
    Shared,
    found,
    json_response,
    names,
    page_arguments,
    page_response,
)
from api.schemas import reads
from api.schemas.customers import (
    AddContact,
    BookRetentionCost,
    ChangeLevel,
    ChangeProfile,
    Churn,
    DescribeDemand,
    PlaceOrder,
    PlanRetention,
    RaiseChurnSignal,
    RecordDelivery,
    RecordPayment,
    RecordResponse,
    RegisterCustomer,
    ReportStock,
)
from api.schemas.fields import PlainCommand
from api.schemas.parameters import Flag, ListParameters, ReadParameters, Term, external, sorts
from api.tokens import Scope
from domain.application import CRM
from domain.personal_attributes import merged
from domain.values import CustomerKind
from infra.vault import ERASED
from projections import customers, lifecycle
from projections.customers import ContactRow, CustomerRow
from projections.lifecycle import Classification
from projections.reading import Connection, Moment

MODEL = "customers"

COMMANDS = (
    Command(
        "/v1/customers",
        RegisterCustomer,
        CRM.register_customer,
        "Register a customer",
        creates="customer",
    ),
    Command("/v1/customers/{id}/profile", ChangeProfile, CRM.change_profile, "Change the profile"),
    Command(
        "/v1/customers/{id}/contacts",
        AddContact,
        CRM.add_contact,
        "Add a contact",
        part="contact_id",
    ),
    Command(
        "/v1/customers/{id}/responses",
        RecordResponse,
        CRM.record_response,
        "Record a response to a campaign",
    ),
    Command("/v1/customers/{id}/orders", PlaceOrder, CRM.place_order, "Record an order"),
    Command(
        "/v1/customers/{id}/deliveries",
        RecordDelivery,
        CRM.record_delivery,
        "Record a delivery",
    ),
    Command(
        "/v1/customers/{id}/payments",
        RecordPayment,
        CRM.record_payment,
        "Record a payment that fell overdue or was settled",
    ),
    Command(
        "/v1/customers/{id}/churn-signals",
        RaiseChurnSignal,
        CRM.raise_churn_signal,
        "Record a sign that the customer may leave",
    ),
    Command(
        "/v1/customers/{id}/lifecycle",
        ChangeLevel,
        CRM.change_level,
        "Move to a level of the relationship",
    ),
    Command("/v1/customers/{id}/churn", Churn, CRM.churn, "Record that the customer left"),
    Command(
        "/v1/customers/{id}/win-back",
        PlainCommand,
        CRM.win_back,
        "Record that a lost customer came back",
    ),
    Command(
        "/v1/customers/{id}/demand",
        DescribeDemand,
        CRM.describe_demand,
        "Describe when the customer buys again",
    ),
    Command(
        "/v1/customers/{id}/stock", ReportStock, CRM.report_stock, "Report the customer's stock"
    ),
    Command(
        "/v1/customers/{id}/retention",
        PlanRetention,
        CRM.plan_retention,
        "Decide on keeping the customer",
    ),
    Command(
        "/v1/customers/{id}/retention-costs",
        BookRetentionCost,
        CRM.book_retention_cost,
        "Book a cost of keeping the customer",
        keyed="reference",
    ),
)

router = APIRouter(prefix="/v1/customers", tags=["customers"])


def _one_of(classification: Classification) -> str:
    return f"^({'|'.join(lifecycle.VALUES[classification])})$"


class CustomerList(ListParameters):
    sort: Annotated[str, Field(pattern=sorts(customers.SORTS))] = "id"
    kind: CustomerKind | None = None
    identified: Flag | None = None
    name: Term | None = None
    region: Term | None = None
    industry: Term | None = None
    source: Term | None = None
    external_source: Term | None = None
    external_id: Term | None = None
    type: Annotated[str, Field(pattern=_one_of(Classification.TYPE))] | None = None
    level: Annotated[str, Field(pattern=_one_of(Classification.LEVEL))] | None = None


@router.get(
    "",
    summary="List customers",
    response_model=reads.ListAnswer[reads.Customer],
    responses=link_header() | read_responses(),
)
async def list_customers(
    request: Request,
    services: Shared,
    reader: Reader,
    parameters: Annotated[CustomerList, Query()],
) -> Response:
    """Search looks at company names and external ids; names of persons are encrypted. `type` and
    `level`: where the customers stood in their lifecycle. Without the scope `personal`, persons
    are shown without name, attributes and external id."""
    arguments = page_arguments(services, parameters, request.url.path)
    filters = parameters.filters()
    standing: dict[str, str] = {
        name: filters.pop(name) for name in ("type", "level") if name in filters
    }

    def query(connection: Connection, moment: Moment) -> Any:
        return customers.customers(
            connection, moment, filters=filters, standing=standing, personal=personal, **arguments
        )

    personal = Scope.PERSONAL in reader.scopes
    models = [MODEL, "lifecycle"] if standing else [MODEL]
    answered = await services.reads.ask(models, parameters.question(), query)
    rows = answered.value.rows
    sealed = [token for row in rows for token in _sealed(row)]
    opened = await names(services, reader, sealed)
    return page_response(
        services,
        request,
        parameters,
        answered,
        (_customer(row, opened, personal) for row in rows),
    )


@router.get(
    "/{id}",
    summary="Read a customer",
    response_model=reads.CustomerAnswer,
    responses=version_header() | read_responses(404),
)
async def read_customer(
    id: UUID, services: Shared, reader: Reader, parameters: Annotated[ReadParameters, Query()]
) -> Response:
    """With contacts, and where the customer stands in each classification of the lifecycle.
    Without the scope `personal`, a person is shown without name, attributes and external id."""

    def query(connection: Connection, moment: Moment) -> Any:
        return (
            customers.customer(connection, id, moment),
            customers.contacts(connection, id, moment),
            lifecycle.standing(connection, id, moment),
        )

    answered = await services.reads.ask(
        [MODEL, "lifecycle"], parameters.question(), query, key=id, partition_key=id
    )
    row, people, standings = answered.value
    customer: CustomerRow = found(row, "customer", id)
    sealed = _sealed(customer)
    for person in people:
        sealed += [person.name, person.email, person.phone]
    opened = await names(services, reader, sealed)
    content = {
        **_customer(customer, opened, Scope.PERSONAL in reader.scopes),
        "contacts": [_contact(person, opened) for person in people],
        "lifecycle": {
            standing.classification.value: {"value": standing.value, "since": standing.since}
            for standing in standings
        },
        **answered.times(),
    }
    return json_response(content, version=customer.version)


Opened = Callable[[str | None], str | None]
"""The text behind a token; see `names`."""


def _sealed(row: CustomerRow) -> list[str | None]:
    """The tokens that the customer is shown by."""
    return [row.personal_name, *([] if row.erased else row.personal_attributes)]


def _customer(row: CustomerRow, opened: Opened, personal: bool) -> dict[str, Any]:
    # Anything may stand in attributes, and an id elsewhere may be a mail address.
    shown = row.kind == CustomerKind.COMPANY or (personal and not row.erased)
    return {
        "id": row.id,
        "kind": row.kind,
        "name": row.name or opened(row.personal_name),
        "identified": row.identified,
        "region": row.region,
        "industry": row.industry,
        "source": row.source,
        "external_id": external(row.external_source, row.external_id) if shown else None,
        "attributes": _attributes(row, opened) if shown else {},
        "registered_at": row.registered_at,
        "version": row.version,
    }


def _attributes(row: CustomerRow, opened: Opened) -> dict[str, Any]:
    """None of a person whose key is destroyed, before the read model knows of it, too."""
    changes = [opened(token) for token in row.personal_attributes]
    if ERASED in changes:
        return {}
    return merged(row.attributes, (text for text in changes if text is not None))


def _contact(row: ContactRow, opened: Opened) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": opened(row.name),
        "department": row.department,
        "level": row.level,
        "role": row.role,
        "email": opened(row.email),
        "phone": opened(row.phone),
        "added_at": row.added_at,
    }
