"""Customers and their contacts: profile, directory, lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

import orjson

from domain.customer import Customer
from domain.values import ExternalId, Personal
from infra.eventstore.feed import Recorded
from projections.calendar import DIM_DATE
from projections.freshness import FRESHNESS
from projections.projection import (
    INFINITY,
    NULL,
    PERIOD_COMMENTS,
    Column,
    Fact,
    FactTable,
    Fold,
    PeriodTable,
    Projection,
    Row,
    State,
    View,
    joined,
    text,
    turned,
)
from projections.reading import (
    NEWEST,
    Connection,
    Moment,
    Page,
    Source,
    fetch,
    fetch_one,
    page_of,
    truth,
)

# ---- tables ----

_SEALED = "sealed (encrypted) token"

_FACT = (
    Column("kind", "text NOT NULL", "Kind of event: the last part of its topic."),
    Column("version", "int NOT NULL", "Version of the customer after the event."),
    Column("customer_kind", "text", "company or person."),
    Column("name", "text", "Company name; empty text clears it."),
    Column("personal_name", "text", f"Name of the person or contact, {_SEALED}."),
    Column("identified", "boolean", "Whether it is known who the customer is."),
    Column("region", "text", "Region; empty text clears it."),
    Column("industry", "text", "Industry; empty text clears it."),
    Column("source", "text", "Where the customer came from; empty text clears it."),
    Column("external_source", "text", "System that knows the customer by external_id."),
    Column("external_id", "text", "Id in that system."),
    Column("attributes", "json", "Attributes set by the event."),
    Column("removed_attributes", "json", "Names of the attributes removed by the event."),
    Column("contact_id", "uuid", "The contact added."),
    Column("department", "text", "Department of the contact."),
    Column("level", "text", "Buying level of the contact."),
    Column("role", "text", "Role of the contact."),
    Column("email", "text", f"E-mail address of the contact, {_SEALED}."),
    Column("phone", "text", f"Telephone number of the contact, {_SEALED}."),
    Column("personal_attributes", "text", f"Change of a person's attributes, {_SEALED}."),
)
# fmt: off
(KIND, VERSION, CUSTOMER_KIND, NAME, PERSONAL, IDENTIFIED, REGION, INDUSTRY, SOURCE, EXT_SOURCE,
 EXT_ID, ATTRIBUTES, REMOVED, CONTACT, DEPARTMENT, LEVEL, ROLE, EMAIL, PHONE,
 PERSONAL_ATTRIBUTES) = range(2, 22)
# fmt: on

_PROFILE = (
    Column("kind", "text NOT NULL", "company or person."),
    Column("name", "text", "Company name; null for a person."),
    Column("personal_name", "text", f"Name of the person, {_SEALED}."),
    Column("identified", "boolean NOT NULL", "Whether it is known who the customer is."),
    Column("region", "text", "Region."),
    Column("industry", "text", "Industry."),
    Column("source", "text", "Where the customer came from."),
    Column("external_source", "text", "System that knows the customer by external_id."),
    Column("external_id", "text", "Id in that system."),
    Column("attributes", "jsonb NOT NULL", "Further attributes by name."),
    Column(
        "personal_attributes",
        "jsonb NOT NULL",
        "Changes of a person's attributes, the earliest first: sealed (encrypted) tokens.",
    ),
    Column("registered_at", "timestamptz NOT NULL", "When the customer was registered."),
)

_CONTACT = (
    Column("name", "text", f"Name, {_SEALED}."),
    Column("department", "text", "Department."),
    Column("level", "text", "Buying level: operation, management, decision."),
    Column("role", "text", "Role."),
    Column("email", "text", f"E-mail address, {_SEALED}."),
    Column("phone", "text", f"Telephone number, {_SEALED}."),
)

# ---- fold ----

Extract = Callable[[Recorded], tuple[str, ...]]


def _sealed(personal: Personal | None) -> str:
    return NULL if personal is None else text(personal.sealed)


def _external(external_id: ExternalId | None) -> tuple[str, str]:
    return (NULL, NULL) if external_id is None else (text(external_id.source), text(external_id.id))


def _flag(value: bool | None) -> str:
    return NULL if value is None else "true" if value else "false"


def _json(value: object) -> str:
    return text(orjson.dumps(value).decode())


def _registered(recorded: Recorded) -> tuple[str, ...]:
    e: Customer.Created = recorded.event
    return (
        "registered", str(recorded.version), e.kind.value, text(e.name), _sealed(e.personal_name),
        _flag(e.identified), text(e.region), text(e.industry), text(e.source),
        *_external(e.external_id), _json(e.attributes),
        NULL, NULL, NULL, NULL, NULL, NULL, NULL, _sealed(e.personal_attributes),
    )  # fmt: skip


def _profile_changed(recorded: Recorded) -> tuple[str, ...]:
    e: Customer.ProfileChanged = recorded.event
    return (
        "profile-changed", str(recorded.version), NULL, text(e.name), _sealed(e.personal_name),
        _flag(e.identified), text(e.region), text(e.industry), text(e.source), NULL, NULL,
        _json(e.attributes), _json(e.removed_attributes),
        NULL, NULL, NULL, NULL, NULL, NULL, _sealed(e.personal_attributes),
    )  # fmt: skip


def _contact_added(recorded: Recorded) -> tuple[str, ...]:
    e: Customer.ContactAdded = recorded.event
    return (
        "contact-added", str(recorded.version), NULL, NULL, _sealed(e.name), NULL, NULL, NULL,
        NULL, NULL, NULL, NULL, NULL, str(e.contact_id), text(e.department), text(e.level),
        text(e.role), _sealed(e.email), _sealed(e.phone), NULL,
    )  # fmt: skip


_NOTHING = (NULL,) * 18


def _counted(topic: str) -> Extract:
    """An event that says nothing about the profile, but makes a new version."""
    kind = topic.rpartition(".")[2]
    return lambda recorded: (kind, str(recorded.version), *_NOTHING)


_PROFILE_TOPICS: Mapping[str, Extract] = {
    Customer.Created.TOPIC: _registered,
    Customer.ProfileChanged.TOPIC: _profile_changed,
    Customer.ContactAdded.TOPIC: _contact_added,
}
_TOPICS: set[str] = {
    vars(event)["TOPIC"]
    for event in vars(Customer).values()
    if isinstance(event, type) and issubclass(event, Customer.Event) and "TOPIC" in vars(event)
}


class CustomerFold(Fold):
    key = Column("customer_id", "uuid NOT NULL", "The customer.")
    facts = FactTable("customer_fact", "Every event of a customer, in parts.", _FACT)
    periods = (
        PeriodTable(
            "customer_period",
            "Profiles of customers, by when they were true and known.",
            (),
            _PROFILE,
            (
                (
                    "customer_period_open",  # the present: single reads, lists, one row a customer
                    f"(customer_id) WHERE known_to = {NEWEST} AND valid_to = 'infinity'",
                ),
            ),
        ),
        PeriodTable(
            "contact_period",
            "Contacts of customers. Personal data is encrypted.",
            (Column("contact_id", "uuid NOT NULL", "The contact."),),
            _CONTACT,
        ),
    )
    start: ClassVar[State] = ((), ())
    extract: ClassVar[Mapping[str, Extract]] = {
        **_PROFILE_TOPICS,
        **{topic: _counted(topic) for topic in sorted(_TOPICS - _PROFILE_TOPICS.keys())},
    }

    def step(self, state: State, fact: Fact) -> tuple[State, tuple[Row, ...]]:
        """The state: (the profile's row once registered), its values."""
        match fact[KIND]:
            case "registered":
                return _register(state, fact)
            case "profile-changed" if state[0]:
                values = _changed(state[1], fact)
                row, settled = turned(state[0][0], fact[0], joined(*values))
                return ((row,), values), settled
            case "contact-added":
                contact = (fact[PERSONAL], *fact[DEPARTMENT:PERSONAL_ATTRIBUTES])
                return state, ((1, fact[CONTACT], fact[0], INFINITY, joined(*contact)),)
            case "erased" if state[0]:
                values = _erased(state[1])
                row, settled = turned(state[0][0], fact[0], joined(*values))
                return ((row,), values), settled
        return state, ()


def _register(state: State, fact: Fact) -> tuple[State, tuple[Row, ...]]:
    if state[0]:
        return state, ()
    values = (
        *fact[CUSTOMER_KIND:REGION],
        *(_cleared(value) for value in fact[REGION:EXT_SOURCE]),
        *fact[EXT_SOURCE:REMOVED],
        _with_change("[]", fact),
        fact[0],
    )
    return (((0, "", fact[0], INFINITY, joined(*values)),), values), ()


def _cleared(value: str) -> str:
    return value or NULL


def _changed(values: tuple[str, ...], fact: Fact) -> tuple[str, ...]:
    (
        kind, name, personal, identified, region, industry, source, *external, attributes, changes,
        since,
    ) = values  # fmt: skip
    if fact[NAME] != NULL:
        name = _cleared(fact[NAME])
    if fact[PERSONAL] != NULL:
        personal = fact[PERSONAL]
    if fact[IDENTIFIED] != NULL:
        identified = fact[IDENTIFIED]
    if fact[REGION] != NULL:
        region = _cleared(fact[REGION])
    if fact[INDUSTRY] != NULL:
        industry = _cleared(fact[INDUSTRY])
    if fact[SOURCE] != NULL:
        source = _cleared(fact[SOURCE])
    if fact[ATTRIBUTES] != "{}" or fact[REMOVED] != "[]":
        merged = {**_parsed(attributes), **_parsed(fact[ATTRIBUTES])}
        for removed in _parsed(fact[REMOVED]):
            merged.pop(removed, None)
        attributes = _json(merged)
    return (
        kind, name, personal, identified, region, industry, source, *external, attributes,
        _with_change(changes, fact), since,
    )  # fmt: skip


def _with_change(changes: str, fact: Fact) -> str:
    sealed = fact[PERSONAL_ATTRIBUTES]
    return changes if sealed == NULL else _json([*_parsed(changes), sealed])


def _erased(values: tuple[str, ...]) -> tuple[str, ...]:
    """Without what is in the clear; the sealed name cannot be opened any more."""
    *profile, _, _, _, _, since = values
    return (*profile, NULL, NULL, "{}", "[]", since)


def _parsed(json: str) -> Any:
    """JSON out of its COPY form. JSON has no raw control characters, so only backslashes count."""
    return orjson.loads(json.replace("\\\\", "\\"))


_OPEN = f"known_to = {NEWEST} AND valid_to = 'infinity'"

# The id of a person in another system may be a mail address, and attributes anything: they are
# for reports of companies alone.
_COMPANY = "kind = 'company'"
_OF_COMPANY = f"CASE WHEN {_COMPANY} THEN {{}} END"
_PUBLIC = f"""name, identified, region, industry, source,
    {_OF_COMPANY.format("external_source")}, {_OF_COMPANY.format("external_id")},
    {_OF_COMPANY.format("attributes")}"""
_CUSTOMER = {
    "customer_id": "The customer.",
    "kind": "company or person.",
    "name": "Company name; null for a person.",
    "identified": "Whether it is known who the customer is.",
    "region": "Region.",
    "industry": "Industry.",
    "source": "Where the customer came from.",
    "external_source": "System that knows the company by external_id; null for a person.",
    "external_id": "Id in that system; null for a person.",
    "attributes": "Further attributes by name; null for a person.",
}
_DIM_CUSTOMER = {
    **{name: comment for name, comment in _CUSTOMER.items() if name != "attributes"},
    "name": "Company name; for a person the pseudonym, which is customer_id.",
    "registered_at": "When the customer was registered.",
    "profile_since": "Since when the profile has been as it is.",
}


class CustomersProjection(Projection):
    """Profiles and contacts of all customers."""

    name = "customers"
    version = 3
    folds = (CustomerFold(),)
    views = (
        View(
            "dim_customer",
            "Customers as they are now, one row each. Persons appear under pseudonyms.",
            _DIM_CUSTOMER,
            f"""SELECT customer_id, kind,
                CASE WHEN {_COMPANY} THEN name ELSE customer_id::text END,
                identified, region, industry, source,
                {_OF_COMPANY.format("external_source")}, {_OF_COMPANY.format("external_id")},
                registered_at, valid_from
                FROM customer_period WHERE {_OPEN}""",
        ),
        View(
            "dim_person",
            "Natural persons, one row each: contacts of customers, and customers who are persons."
            " Under pseudonyms: names, addresses and numbers are not here.",
            {
                "person_id": "The pseudonym: the id that stands for the person in the whole"
                " product; of a customer who is a person, the customer's.",
                "customer_id": "The customer they belong to, or are.",
                "kind": "contact or customer.",
                "department": "Department of the contact.",
                "level": "Buying level of the contact: operation, management, decision.",
                "role": "Role of the contact.",
                "known_since": "When the contact was added, or the customer registered.",
            },
            f"""SELECT contact_id, customer_id, 'contact', department, level, role, valid_from
                FROM contact_period WHERE {_OPEN}
                UNION ALL
                SELECT customer_id, customer_id, 'customer', NULL, NULL, NULL, registered_at
                FROM customer_period WHERE {_OPEN} AND NOT {_COMPANY}""",
        ),
        View(
            "customer",
            "Customers as they are now, with all attributes. Persons appear under their id only.",
            {**_CUSTOMER, "registered_at": "When the customer was registered."},
            f"""SELECT customer_id, kind, {_PUBLIC}, registered_at
                FROM customer_period WHERE {_OPEN}""",
        ),
        View(
            "customer_history",
            "Profiles of customers over both times. Persons appear under their id only.",
            {**_CUSTOMER, **PERIOD_COMMENTS},
            f"""SELECT customer_id, kind, {_PUBLIC}, {", ".join(PERIOD_COMMENTS)}
                FROM customer_period""",
        ),
        # Of no read model in particular: they have to be made with some.
        DIM_DATE,
        FRESHNESS,
    )


# ---- queries ----


@dataclass(frozen=True, slots=True)
class CustomerRow:
    """A customer at a moment. `name` is a company's; a person's is in `personal_name`, sealed.

    `attributes` are a company's, and those of a person that were recorded by earlier versions of
    the program; `personal_attributes` are sealed changes to them, the earliest first. `erased`:
    whether the person has been erased by now, whatever the moment.
    """

    id: UUID
    kind: str
    name: str | None
    personal_name: str | None
    identified: bool
    region: str | None
    industry: str | None
    source: str | None
    external_source: str | None
    external_id: str | None
    attributes: dict[str, Any]
    personal_attributes: list[str]
    erased: bool
    registered_at: datetime
    version: int


@dataclass(frozen=True, slots=True)
class ContactRow:
    """A contact of a customer. `name`, `email`, `phone` are sealed tokens."""

    id: UUID
    name: str | None
    department: str | None
    level: str | None
    role: str | None
    email: str | None
    phone: str | None
    added_at: datetime


_ERASED = """(row.kind = 'person' AND EXISTS (SELECT FROM customer_fact AS erasure
    WHERE erasure.customer_id = row.customer_id AND erasure.kind = 'erased'))"""
"""What was known and true before an erasure still stands in the rows of then: it is not shown."""

FILTERS = {
    "kind": "row.kind = %(filter_kind)s",
    "region": "row.region = %(filter_region)s",
    "industry": "row.industry = %(filter_industry)s",
    "source": "row.source = %(filter_source)s",
    "identified": "row.identified = %(filter_identified)s",
    "name": "row.name = %(filter_name)s",
    "external_source": f"row.external_source = %(filter_external_source)s AND NOT {_ERASED}",
    "external_id": f"row.external_id = %(filter_external_id)s AND NOT {_ERASED}",
}
SORTS = {
    "id": ("row.customer_id", "uuid"),
    "name": ("coalesce(row.name, '')", "text"),
    "registered_at": ("row.registered_at", "timestamptz"),
    "region": ("coalesce(row.region, '')", "text"),
    "industry": ("coalesce(row.industry, '')", "text"),
    "source": ("coalesce(row.source, '')", "text"),
}
_LIST = Source("row.customer_id", FILTERS, SORTS, ("row.name", "row.external_id"))
_LIST_OF_THEN = Source(
    "row.customer_id",
    FILTERS,
    SORTS,
    ("row.name", f"CASE WHEN NOT {_ERASED} THEN row.external_id END"),
)
_LIST_OF_COMPANIES_IDS = Source(
    "row.customer_id",
    FILTERS,
    SORTS,
    ("row.name", "CASE WHEN row.kind = 'company' THEN row.external_id END"),
)
"""For those who may not know the ids that persons have elsewhere, nor guess them by parts."""

_SELECT = f"""row.customer_id AS id, row.kind, row.name, row.personal_name, row.identified,
    row.region, row.industry, row.source, row.external_source, row.external_id, row.attributes,
    row.personal_attributes, {_ERASED} AS erased, row.registered_at,
    (SELECT fact.version FROM customer_fact AS fact
     WHERE fact.customer_id = row.customer_id
     AND (%(known_at)s::bigint IS NULL OR fact.position <= %(known_at)s)
     ORDER BY fact.position DESC LIMIT 1) AS version
    FROM customer_period AS row"""


def customer(connection: Connection, customer_id: UUID, moment: Moment) -> CustomerRow | None:
    """The customer, or None where it was not known or not there yet.

    `version` is that of the latest event known, whenever it was true.
    """
    row = fetch_one(
        connection,
        f"SELECT {_SELECT} WHERE row.customer_id = %(id)s::uuid AND {truth(moment, 'row')}",
        {**moment.parameters(), "id": str(customer_id)},
    )
    return None if row is None else CustomerRow(**row)


def contacts(connection: Connection, customer_id: UUID, moment: Moment) -> list[ContactRow]:
    """The customer's contacts in the order they were added."""
    rows = fetch(
        connection,
        f"""SELECT contact_id AS id, name, department, level, role, email, phone,
            valid_from AS added_at FROM contact_period AS row
            WHERE row.customer_id = %(id)s::uuid AND {truth(moment, "row")}
            ORDER BY valid_from, known_from""",
        {**moment.parameters(), "id": str(customer_id)},
    )
    return [ContactRow(**row) for row in rows]


def customers(
    connection: Connection,
    moment: Moment,
    *,
    filters: Mapping[str, Any] | None = None,
    standing: Mapping[str, str] | None = None,
    personal: bool = True,
    search: str | None = None,
    sort: str = "id",
    descending: bool = False,
    after: tuple[str, UUID] | None = None,
    limit: int = 100,
) -> Page[CustomerRow]:
    """A page of the customers there were. Search looks at company names and external ids, at those
    of persons only if `personal`.

    `standing`: classification → the value of those wanted at the moment; it is the read model of
    the lifecycle that knows.
    """
    where, parameters = [truth(moment, "row")], moment.parameters()
    for classification, value in (standing or {}).items():
        where.append(f"""EXISTS (SELECT FROM standing_period AS standing
            WHERE standing.customer_id = row.customer_id
            AND standing.classification = %(of_{classification})s
            AND standing.value = %(is_{classification})s AND {truth(moment, "standing")})""")
        parameters |= {f"of_{classification}": classification, f"is_{classification}": value}
    source = _LIST_OF_COMPANIES_IDS
    if personal:  # the rows of now have no external ids of those who were erased
        now = moment.latest and moment.known_at is None
        source = _LIST if now else _LIST_OF_THEN
    rows, following = page_of(
        connection, source, _SELECT, " AND ".join(where), parameters,
        filters=filters or {}, search=search, sort=sort, descending=descending,
        after=after, limit=limit,
    )  # fmt: skip
    return Page([CustomerRow(**row) for row in rows], following)
