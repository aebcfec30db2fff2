"""Deals and their stage visits: tables, fold, queries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

from domain.opportunity import Opportunity
from domain.values import Money
from infra.eventstore.feed import Recorded
from projections import stabbing
from projections.funnel.stays import STAYS, begun, ended
from projections.projection import (
    FALSE,
    INFINITY,
    NULL,
    TRUE,
    Column,
    Fact,
    FactTable,
    Fold,
    PeriodTable,
    Row,
    State,
    Summary,
    Summed,
    plain,
    text,
    turned,
)
from projections.reading import (
    NEWEST,
    Connection,
    Moment,
    Page,
    Source,
    fetch_one,
    page_of,
    truth,
)

# ---- tables ----

DEAL_FACT = (
    Column("kind", "text NOT NULL", "Kind of event: the last part of its topic."),
    Column("version", "int NOT NULL", "Version of the deal after the event."),
    Column("actor", "text NOT NULL", "Id of who recorded it."),
    Column("customer_id", "uuid", "Customer, at the opening."),
    Column("name", "text", "Name, at the opening."),
    Column("pipeline_id", "uuid", "Pipeline, at the opening."),
    Column("revision", "int", "Revision of the pipeline that the deal runs under from here on."),
    Column("from_stage", "text", "Stage left."),
    Column("stage", "text", "Stage entered."),
    Column("amount", "numeric", "Amount: of the deal, the contract or an expense."),
    Column("currency", "text", "Currency of the amount."),
    Column("on_date", "date", "Expected close, or the day the contract was signed."),
    Column("owner", "text", "Id of the owner from here on."),
    Column("campaign_id", "uuid", "Campaign the deal came from."),
    Column("referred_by", "text", "Who referred the deal."),
    Column("external_source", "text", "System that knows the deal by external_id."),
    Column("external_id", "text", "Id in that system."),
    Column("chance", "numeric", "Chance to win, as estimated."),
    Column("cause", "text", "Cause of a loss."),
    Column("competitor", "text", "Competitor named in a loss or a review."),
    Column("approved_by", "text", "Id of who approved the change."),
    Column("note", "text", "Kind of an activity, purpose of an expense."),
    Column("result", "text", "Result of an activity."),
)
(KIND, VERSION, ACTOR, CUSTOMER, NAME, PIPELINE, REVISION, FROM_STAGE, STAGE, AMOUNT, CURRENCY,
 ON_DATE, OWNER, CAMPAIGN, REFERRED, EXT_SOURCE, EXT_ID, CHANCE, CAUSE, COMPETITOR, APPROVED,
 NOTE, RESULT) = range(2, 25)  # fmt: skip

DEAL = (
    Column("customer_id", "uuid NOT NULL", "The customer."),
    Column("name", "text NOT NULL", "Name of the deal."),
    Column("pipeline_id", "uuid NOT NULL", "The pipeline."),
    Column("revision", "int NOT NULL", "Revision of the pipeline that the deal runs under."),
    Column("stage", "text NOT NULL", "Stage, or the last one of a deal that ended."),
    Column("entered_at", "timestamptz NOT NULL", "When the deal entered its stage."),
    Column("status", "text NOT NULL", "open, suspended, terminated, won or lost."),
    Column("amount", "numeric NOT NULL", "Amount asked."),
    Column("currency", "text NOT NULL", "Currency of the amounts."),
    Column("expected_close", "date", "Day on which a decision is expected."),
    Column("owner", "text", "Id of the owner."),
    Column("campaign_id", "uuid", "Campaign the deal came from."),
    Column("referred_by", "text", "Who referred the deal."),
    Column("external_source", "text", "System that knows the deal by external_id."),
    Column("external_id", "text", "Id in that system."),
    Column("chance", "numeric", "Chance to win as estimated; null if nobody did."),
    Column("won_amount", "numeric", "Amount of the contract."),
    Column("signed_on", "date", "Day the contract was signed."),
    Column("lost_cause", "text", "Cause of the loss."),
    Column("competitor", "text", "Competitor named in the loss or the review."),
    Column("reviewed", "boolean NOT NULL", "Whether the deal was reviewed."),
    Column("closed", "boolean NOT NULL", "Whether the deal was closed."),
    Column("archived", "boolean NOT NULL", "Whether the deal was archived."),
    Column("purged", "boolean NOT NULL", "Whether the deal was released for purging."),
    Column("opened_at", "timestamptz NOT NULL", "When the deal was opened."),
)
# Places in the values of a deal's row.
_PIPELINE, _REVISION, _STAGE, _ENTERED, _STATUS, _AMOUNT = 2, 3, 4, 5, 6, 7
_EXPECTED, _OWNER, _CHANCE, _WON_AMOUNT, _SIGNED_ON = 9, 10, 15, 16, 17
_CAUSE, _COMPETITOR, _REVIEWED, _CLOSED, _ARCHIVED, _PURGED = 18, 19, 20, 21, 22, 23

# ---- fold ----

Extract = Callable[[Recorded], tuple[str, ...]]


def _columns(kind: str, recorded: Recorded, **columns: str) -> tuple[str, ...]:
    fact = [NULL] * 23
    fact[0], fact[1], fact[2] = kind, str(recorded.version), text(recorded.actor)
    for name, value in columns.items():
        fact[_PLACE[name]] = value
    return tuple(fact)


_PLACE = {column.name: place for place, column in enumerate(DEAL_FACT)}
_N3, _N4, _N5, _N6 = (NULL,) * 3, (NULL,) * 4, (NULL,) * 5, (NULL,) * 6


def _opened(recorded: Recorded) -> tuple[str, ...]:
    e: Opportunity.Created = recorded.event
    external = e.external_id
    return (
        "opened", str(recorded.version), text(recorded.actor), str(e.customer_id), text(e.name),
        str(e.pipeline_id), str(e.pipeline_revision), NULL, text(e.stage), str(e.amount.value),
        e.amount.currency, plain(e.expected_close), text(e.owner), plain(e.campaign_id),
        text(e.referred_by), text(external.source) if external else NULL,
        text(external.id) if external else NULL, *_N6,
    )  # fmt: skip


def _moved(kind: str) -> Extract:
    def extract(recorded: Recorded) -> tuple[str, ...]:
        e: Opportunity.StageAdvanced = recorded.event
        return (
            kind, str(recorded.version), text(recorded.actor), *_N3, str(e.pipeline_revision),
            text(e.from_stage), text(e.to_stage), *_N6, *_N5, text(e.approved_by), NULL, NULL,
        )  # fmt: skip

    return extract


def _amount_changed(recorded: Recorded) -> tuple[str, ...]:
    amount: Money = recorded.event.amount
    return (
        "amount-changed", str(recorded.version), text(recorded.actor), *_N6, str(amount.value),
        amount.currency, *_N6, *_N6,
    )  # fmt: skip


def _signed(recorded: Recorded) -> tuple[str, ...]:
    e: Opportunity.ContractSigned = recorded.event
    return _columns(
        "contract-signed", recorded, amount=str(e.amount.value), currency=e.amount.currency,
        on_date=str(e.signed_on),
    )  # fmt: skip


def _lost(recorded: Recorded) -> tuple[str, ...]:
    e: Opportunity.Lost = recorded.event
    return _columns("lost", recorded, cause=text(e.cause), competitor=text(e.competitor))


def _expense(recorded: Recorded) -> tuple[str, ...]:
    e: Opportunity.ExpenseBooked = recorded.event
    return _columns(
        "expense-booked", recorded, note=text(e.purpose), amount=str(e.amount.value),
        currency=e.amount.currency,
    )  # fmt: skip


def _bare(kind: str) -> Extract:
    return lambda recorded: _columns(kind, recorded)


def _approved(kind: str) -> Extract:
    return lambda recorded: _columns(kind, recorded, approved_by=text(recorded.event.approved_by))


FORECAST = ("pipeline_id", "stage", "revision", "currency", "entered_at", "amount")
OPEN = "status = 'open'"
"""What a forecast needs of the deals that it is about."""

RUNNING = Summary(
    (
        Summed("pipeline_id", "uuid"),
        Summed("stage", "text"),
        Summed("revision", "int"),
        Summed("currency", "text"),
        Summed("status", "text"),
    ),
    (Summed("amount", "numeric"),),
    "status IN ('open', 'suspended')",
)
"""What is in the funnel."""


class DealFold(Fold):
    key = Column("deal_id", "uuid NOT NULL", "The deal.")
    facts = FactTable("deal_fact", "Every event of a deal, in parts.", DEAL_FACT)
    periods = (
        PeriodTable(
            "deal_period",
            "States of deals, by when they were true and known.",
            (),
            DEAL,
            (
                (
                    "deal_period_open",  # the present: lists, funnel, forecast, one row a deal
                    f"(deal_id) WHERE known_to = {NEWEST} AND valid_to = 'infinity'",
                ),
                (
                    "deal_period_won",  # what was won in the months of a forecast
                    "(signed_on) WHERE status = 'won'",
                ),
                *stabbing.indexes("deal_period", FORECAST, OPEN),  # a forecast, of any moment
            ),
            RUNNING,
        ),
        STAYS,
    )
    start: ClassVar[State] = ((), (), 0, 0)
    extract: ClassVar[Mapping[str, Extract]] = {
        Opportunity.Created.TOPIC: _opened,
        Opportunity.StageAdvanced.TOPIC: _moved("stage-advanced"),
        Opportunity.StageMovedBack.TOPIC: _moved("stage-moved-back"),
        Opportunity.AmountChanged.TOPIC: _amount_changed,
        Opportunity.ExpectedCloseChanged.TOPIC: lambda recorded: _columns(
            "expected-close-changed", recorded, on_date=plain(recorded.event.expected_close)
        ),
        Opportunity.Transferred.TOPIC: lambda recorded: _columns(
            "transferred", recorded, owner=text(recorded.event.to_owner)
        ),
        Opportunity.Suspended.TOPIC: _approved("suspended"),
        Opportunity.Resumed.TOPIC: _bare("resumed"),
        Opportunity.Terminated.TOPIC: _approved("terminated"),
        Opportunity.ContractSigned.TOPIC: _signed,
        Opportunity.Lost.TOPIC: _lost,
        Opportunity.Reviewed.TOPIC: lambda recorded: _columns(
            "reviewed", recorded, competitor=text(recorded.event.competitor)
        ),
        Opportunity.ChanceEstimated.TOPIC: lambda recorded: _columns(
            "chance-estimated", recorded, chance=str(recorded.event.chance)
        ),
        Opportunity.ActivityRecorded.TOPIC: lambda recorded: _columns(
            "activity-recorded",
            recorded,
            note=text(recorded.event.kind),
            result=text(recorded.event.result),
        ),
        Opportunity.ExpenseBooked.TOPIC: _expense,
        Opportunity.Closed.TOPIC: _bare("closed"),
        Opportunity.Archived.TOPIC: _bare("archived"),
        Opportunity.Purged.TOPIC: _bare("purged"),
    }

    def step(self, state: State, fact: Fact) -> tuple[State, tuple[Row, ...]]:
        """The state: (deal's row, row of the stay's part while it lasts), the deal's values,
        numbers of the last visit and its last part."""
        if not state[0]:
            return _open(fact) if fact[KIND] == "opened" else (state, ())
        change = _DEAL_STEPS.get(fact[KIND])
        return (state, ()) if change is None else change(state, fact)


Step = Callable[[State, Fact], tuple[State, tuple[Row, ...]]]
_END = {"contract-signed": "won", "lost": "lost", "terminated": "terminated"}


def _open(fact: Fact) -> tuple[State, tuple[Row, ...]]:
    at = fact[0]
    values = (
        fact[CUSTOMER], fact[NAME], fact[PIPELINE], fact[REVISION], fact[STAGE], at, "open",
        fact[AMOUNT], fact[CURRENCY], *fact[ON_DATE:CHANCE], *_N5, FALSE, FALSE, FALSE, FALSE, at,
    )  # fmt: skip
    deal = (0, "", at, INFINITY, "\t".join(values))
    return ((deal, _stay(1, 1, at, values)), values, 1, 1), ()


def _stay(visit: int, part: int, at: str, values: Sequence[str]) -> Row:
    return begun(visit, part, at, *values[_PIPELINE:_EXPECTED])


def _set(*places: tuple[int, int]) -> Step:
    """Takes values of the fact (second place) over into the deal's row (first place)."""

    def step(state: State, fact: Fact) -> tuple[State, tuple[Row, ...]]:
        values = list(state[1])
        for to, of in places:
            values[to] = fact[of]
        return _with(state, fact[0], values)

    return step


def _put(place: int, value: str, among: tuple[str, ...] = ()) -> Step:
    """Sets a value of the deal's row; if `among` is given, only when it is one of these."""

    def step(state: State, fact: Fact) -> tuple[State, tuple[Row, ...]]:
        values = list(state[1])
        if among and values[place] not in among:
            return state, ()
        values[place] = value
        return _with(state, fact[0], values)

    return step


def _with(state: State, at: str, values: list[str]) -> tuple[State, tuple[Row, ...]]:
    rows, before, visit, part = state
    new = tuple(values)
    if new == before:
        return state, ()
    row, settled = turned(rows[0], at, "\t".join(new))
    how = _PARTED.get((before[_STATUS], new[_STATUS]))
    if how is None and before[_AMOUNT] != new[_AMOUNT]:
        how = "repriced"
    if len(rows) < 2 or how is None:
        return ((row, *rows[1:]), new, visit, part), settled
    left = ended(rows[1], at, how)
    return ((row, _stay(visit, part + 1, at, new)), new, visit, part + 1), (*settled, left)


_PARTED = {("open", "suspended"): "suspended", ("suspended", "open"): "resumed"}


def _move(state: State, fact: Fact) -> tuple[State, tuple[Row, ...]]:
    rows, before, visit, _ = state
    if len(rows) < 2:
        return state, ()  # a deal that ended stays where it is
    at = fact[0]
    values = list(before)
    values[_STAGE], values[_REVISION], values[_ENTERED] = fact[STAGE], fact[REVISION], at
    row, settled = turned(rows[0], at, "\t".join(values))
    left = ended(rows[1], at, fact[KIND][len("stage-") :], to_stage=fact[STAGE])
    stay = _stay(visit + 1, 1, at, values)
    return ((row, stay), tuple(values), visit + 1, 1), (*settled, left)


def _end(state: State, fact: Fact) -> tuple[State, tuple[Row, ...]]:
    rows, before, visit, part = state
    if len(rows) < 2:
        return state, ()
    how = _END[fact[KIND]]
    values = list(before)
    values[_STATUS] = how
    if how == "won":
        values[_WON_AMOUNT], values[_SIGNED_ON] = fact[AMOUNT], fact[ON_DATE]
    elif how == "lost":
        values[_CAUSE], values[_COMPETITOR] = fact[CAUSE], fact[COMPETITOR]
    row, settled = turned(rows[0], fact[0], "\t".join(values))
    left = ended(rows[1], fact[0], how, won_amount=fact[AMOUNT] if how == "won" else NULL)
    return ((row,), tuple(values), visit, part), (*settled, left)


def _review(state: State, fact: Fact) -> tuple[State, tuple[Row, ...]]:
    values = list(state[1])
    values[_REVIEWED] = TRUE
    if fact[COMPETITOR] != NULL:
        values[_COMPETITOR] = fact[COMPETITOR]
    return _with(state, fact[0], values)


_DEAL_STEPS: dict[str, Step] = {
    "stage-advanced": _move,
    "stage-moved-back": _move,
    "amount-changed": _set((_AMOUNT, AMOUNT)),
    "expected-close-changed": _set((_EXPECTED, ON_DATE)),
    "transferred": _set((_OWNER, OWNER)),
    "chance-estimated": _set((_CHANCE, CHANCE)),
    "suspended": _put(_STATUS, "suspended", ("open",)),
    "resumed": _put(_STATUS, "open", ("suspended",)),
    "terminated": _end,
    "contract-signed": _end,
    "lost": _end,
    "reviewed": _review,
    "closed": _put(_CLOSED, TRUE),
    "archived": _put(_ARCHIVED, TRUE),
    "purged": _put(_PURGED, TRUE),
}

# ---- queries ----


@dataclass(frozen=True, slots=True)
class DealRow:
    """A deal at a moment. `chance` is the estimate on record, None where nobody made one."""

    id: UUID
    customer_id: UUID
    name: str
    pipeline_id: UUID
    revision: int
    stage: str
    entered_at: datetime
    status: str
    amount: Decimal
    currency: str
    expected_close: date | None
    owner: str | None
    campaign_id: UUID | None
    referred_by: str | None
    external_source: str | None
    external_id: str | None
    chance: Decimal | None
    won_amount: Decimal | None
    signed_on: date | None
    lost_cause: str | None
    competitor: str | None
    reviewed: bool
    closed: bool
    archived: bool
    purged: bool
    opened_at: datetime
    version: int


FILTERS = {
    "customer_id": "row.customer_id = %(filter_customer_id)s",
    "pipeline_id": "row.pipeline_id = %(filter_pipeline_id)s",
    "stage": "row.stage = %(filter_stage)s",
    "status": "row.status = %(filter_status)s",
    "currency": "row.currency = %(filter_currency)s",
    "owner": "row.owner = %(filter_owner)s",
    "campaign_id": "row.campaign_id = %(filter_campaign_id)s",
    "competitor": "row.competitor = %(filter_competitor)s",
    "name": "row.name = %(filter_name)s",
    "external_source": "row.external_source = %(filter_external_source)s",
    "external_id": "row.external_id = %(filter_external_id)s",
    "closed": "row.closed = %(filter_closed)s",
    "archived": "row.archived = %(filter_archived)s",
}
SORTS = {
    "id": ("row.deal_id", "uuid"),
    "name": ("row.name", "text"),
    "amount": ("row.amount", "numeric"),
    "opened_at": ("row.opened_at", "timestamptz"),
    "entered_at": ("row.entered_at", "timestamptz"),
    "expected_close": ("coalesce(row.expected_close, 'infinity'::date)", "date"),
    "stage": ("row.stage", "text"),
    "owner": ("coalesce(row.owner, '')", "text"),
}
_DEALS = Source("row.deal_id", FILTERS, SORTS, ("row.name", "row.external_id"))
_SELECT_DEAL = f"""row.deal_id AS id, {", ".join(f"row.{column.name}" for column in DEAL)},
    (SELECT fact.version FROM deal_fact AS fact WHERE fact.deal_id = row.deal_id
     AND (%(known_at)s::bigint IS NULL OR fact.position <= %(known_at)s)
     ORDER BY fact.position DESC LIMIT 1) AS version
    FROM deal_period AS row"""


def deal(connection: Connection, deal_id: UUID, moment: Moment) -> DealRow | None:
    """The deal, or None where it was not known or not opened yet.

    `version` is that of the latest event known, whenever it was true.
    """
    row = fetch_one(
        connection,
        f"SELECT {_SELECT_DEAL} WHERE row.deal_id = %(id)s::uuid AND {truth(moment, 'row')}",
        {**moment.parameters(), "id": str(deal_id)},
    )
    return None if row is None else DealRow(**row)


def deals(
    connection: Connection,
    moment: Moment,
    *,
    filters: Mapping[str, Any] | None = None,
    search: str | None = None,
    sort: str = "id",
    descending: bool = False,
    after: tuple[str, UUID] | None = None,
    limit: int = 100,
) -> Page[DealRow]:
    """A page of the deals there were. Search looks at names and external ids."""
    rows, following = page_of(
        connection, _DEALS, _SELECT_DEAL, truth(moment, "row"), moment.parameters(),
        filters=filters or {}, search=search, sort=sort, descending=descending,
        after=after, limit=limit,
    )  # fmt: skip
    return Page([DealRow(**row) for row in rows], following)
