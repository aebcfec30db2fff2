"""Erasing a person: the key is destroyed, and what shows that it was.

An erasure has four steps: the key is destroyed and noted in the vault, in one transaction; it is
noted in a file outside the database; it is recorded as an event; the vault is told where. After a
crash between any two of them the request's repetition, or the next start of a process, goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Literal
from uuid import UUID

import psycopg2
import structlog

from domain.customer import Customer
from domain.errors import CustomerNotFound, NotFound
from infra.commands import Commands, Request, StoreUnavailable
from infra.crashpoints import reach
from infra.erasure_file import Entry, ErasureFile
from infra.postgres import Pool
from infra.vault import Vault

log = structlog.get_logger(__name__)

LISTED: Final = 1_000
"""Positions that are noted of each kind, at most."""
_TOPICS = {"contact": Customer.ContactErased.TOPIC, "customer": Customer.Erased.TOPIC}
_COLUMNS = (
    "subject, customer_id, kind, erased_at, actor, reason, position, since_position,"
    " sealed_fields, positions, in_clear"
)
# A key that was never made is destroyed as well: none will be.
_DESTROY = """WITH gone AS (
        INSERT INTO keys (subject, destroyed_at) VALUES (%(subject)s, %(erased_at)s)
        ON CONFLICT (subject) DO UPDATE SET wrapped = NULL, master = NULL,
            destroyed_at = coalesce(keys.destroyed_at, excluded.destroyed_at))
    INSERT INTO erasures (subject, customer_id, kind, erased_at, actor, reason)
    VALUES (%(subject)s, %(customer_id)s, %(kind)s, %(erased_at)s, %(actor)s, %(reason)s)
    ON CONFLICT (subject) DO NOTHING"""
_DESTROY_AGAIN = """UPDATE keys SET wrapped = NULL, master = NULL, destroyed_at = erasures.erased_at
    FROM erasures WHERE erasures.subject = keys.subject AND keys.wrapped IS NOT NULL"""
_SEALED = """SELECT count(*), coalesce(sum((length(body) - length(replace(body, %(token)s, '')))
        / length(%(token)s)), 0), (array_agg(position ORDER BY position))[1:%(listed)s]
    FROM (SELECT position, convert_from(state, 'UTF8') AS body FROM events
        WHERE partition_key = %(customer_id)s
        AND position(convert_to(%(token)s, 'UTF8') IN state) > 0) AS event"""
_CLEAR = """SELECT coalesce((array_agg(position ORDER BY position))[1:%(listed)s], '{}')
    FROM (SELECT position, convert_from(state, 'UTF8')::jsonb AS body FROM events
        WHERE stream_id = %(customer_id)s AND class_version = 1
        AND topic = ANY(%(topics)s)) AS event
    WHERE coalesce(body -> 'attributes', '{}') <> '{}'
    OR coalesce(body -> 'removed_attributes', '[]') <> '[]'"""
_UNRECORDED = """SELECT subject FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::bigint[])
        AS erased (subject, customer_id, topic, position)
    WHERE NOT EXISTS (SELECT FROM events WHERE events.position = erased.position
        AND events.stream_id = erased.customer_id AND events.topic = erased.topic)"""


@dataclass(frozen=True, slots=True)
class Erasure:
    """An erasure as the vault has it; from `position` on null until the event is recorded."""

    subject: UUID
    customer_id: UUID
    kind: Literal["contact", "customer"]
    erased_at: datetime
    actor: str
    reason: str | None
    position: int | None
    since_position: int | None
    sealed_fields: int | None
    positions: list[int] | None
    in_clear: list[int] | None

    @property
    def entry(self) -> Entry:
        return Entry(self.subject, self.customer_id, self.kind, self.erased_at, self.actor)


class Erasures:
    """Erases persons, and knows who was erased.

    `vault_pool` finds the tables of the vault as the vault's role, `log_pool` those of the log as
    the writer; both are autocommit. Methods that are not coroutines block.
    """

    def __init__(self, vault: Vault, vault_pool: Pool, log_pool: Pool, file: ErasureFile) -> None:
        self._vault = vault
        self._vault_pool = vault_pool
        self._log_pool = log_pool
        self._file = file

    @property
    def remembered(self) -> float:
        """Seconds after which no process opens anything with the key, whatever it was told."""
        return self._vault.remember

    async def erase(
        self,
        commands: Commands,
        customer_id: UUID,
        contact_id: UUID | None,
        request: Request,
    ) -> Erasure:
        """Erases the contact, or the person who is the customer; one that is erased stays so.

        Of `request` actor, reason and what it belongs to count. Errors: CustomerNotFound,
        ContactNotFound and NotAPerson, with nothing done; else what `Commands.execute` raises,
        after which a repetition goes on.
        """
        customer = await commands.aggregate(customer_id)
        if not isinstance(customer, Customer):
            raise CustomerNotFound(f"there is no customer {customer_id}")
        if contact_id is None:
            customer.check_person()
        else:
            customer.check_contact(contact_id)
        subject = contact_id or customer_id
        known = await commands.blocking(self.find, subject)
        if known is None:
            entry = Entry(
                subject,
                customer_id,
                "customer" if contact_id is None else "contact",
                datetime.now(UTC),
                request.actor,
            )
            await commands.blocking(self._destroy, entry, request.reason)
        elif known.position is None:
            await commands.blocking(self._destroy_again, known)
        else:
            return known
        known = await commands.blocking(self._found, subject)
        return await self._record(commands, known, request)

    async def complete(self, commands: Commands) -> None:
        """Record the erasures that have no event, after a crash or in a log that was restored."""
        for erasure in await commands.blocking(self._unrecorded):
            try:
                await self._record(commands, erasure, Request(erasure.actor, None))
            except NotFound:  # the log was restored to a time before the person was in it
                log.warning("no such person in the log to erase", subject=str(erasure.subject))

    def reapply(self) -> int:
        """Have file and vault agree, and no key of anybody erased: to be called at every start.

        How many persons had to be erased again. Raises `OSError` for the file, and what the
        driver raises.
        """
        noted = {entry.subject: entry for entry in self._file.entries()}
        known = {erasure.subject: erasure.entry for erasure in self.all()}
        missing = [entry for subject, entry in noted.items() if subject not in known]
        with self._vault_pool.connection() as connection, connection.cursor() as cursor:
            for entry in missing:
                cursor.execute(_DESTROY, _values(entry, None))
            cursor.execute(_DESTROY_AGAIN)
            back = cursor.rowcount
        self._file.append(entry for subject, entry in known.items() if subject not in noted)
        if missing or back:
            log.warning("erased again", not_in_vault=len(missing), keys_back=back)
            self._vault.forget_all()
            self._vacuum()
            self._tell("")
        return len(missing) + back

    def all(self) -> list[Erasure]:
        """Every erasure, the earliest first."""
        return self._select("ORDER BY erased_at, subject", ())

    def page(self, after: UUID | None, limit: int) -> list[Erasure]:
        """Erasures in the order of their subjects' ids, those after `after`."""
        return self._select(
            "WHERE subject > %s ORDER BY subject LIMIT %s", (after or UUID(int=0), limit)
        )

    def find(self, subject: UUID) -> Erasure | None:
        """The person's erasure, if any."""
        found = self._select("WHERE subject = %s", (subject,))
        return found[0] if found else None

    def _found(self, subject: UUID) -> Erasure:
        found = self.find(subject)
        if found is None:
            raise StoreUnavailable("the erasure is not there any more")
        return found

    def _select(self, rest: str, parameters: Sequence[Any]) -> list[Erasure]:
        with self._vault_pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT {_COLUMNS} FROM erasures {rest}", parameters)
            return [Erasure(*row) for row in cursor.fetchall()]

    def _destroy(self, entry: Entry, reason: str | None) -> None:
        with self._vault_pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(_DESTROY, _values(entry, reason))
        reach("erase.destroyed")
        self._destroyed(entry)
        self._note([self._found(entry.subject).entry])
        reach("erase.noted")
        self._vacuum()

    def _destroy_again(self, known: Erasure) -> None:
        """What may be left to do of an erasure that did not come to its end."""
        self._destroyed(known.entry)
        if all(entry.subject != known.subject for entry in self._file.entries()):
            self._note([known.entry])
        self._vacuum()

    def _destroyed(self, entry: Entry) -> None:
        self._vault.forget(entry.subject)
        self._tell(f"{entry.subject} {entry.customer_id}")

    def _note(self, entries: Sequence[Entry]) -> None:
        try:
            self._file.append(entries)
        except OSError as error:
            raise StoreUnavailable(f"the file of erasures: {error.strerror}") from error

    async def _record(self, commands: Commands, erasure: Erasure, request: Request) -> Erasure:
        crm, subject, customer_id = commands.crm, erasure.subject, erasure.customer_id
        decide = (
            partial(crm.erase_customer, customer_id)
            if erasure.kind == "customer"
            else partial(crm.erase_contact, customer_id, contact_id=subject)
        )
        await commands.execute(
            decide,
            target=customer_id,
            request=Request(
                actor=erasure.actor,
                key=f"erasure of {subject}",
                reason=erasure.reason,
                correlation_id=request.correlation_id,
                causation_id=request.causation_id,
                traceparent=request.traceparent,
            ),
        )
        reach("erase.recorded")
        await commands.blocking(self._account, erasure)
        return await commands.blocking(self._found, subject)

    def _account(self, erasure: Erasure) -> None:
        """Notes where the event is, and what the key had opened. Reads the customer's events, by
        way of the index for audits."""
        named = {
            "customer_id": erasure.customer_id,
            "topic": _TOPICS[erasure.kind],
            "subject": str(erasure.subject) if erasure.kind == "contact" else "",
            "token": f'"1.{erasure.subject}.',
            "topics": [Customer.Created.TOPIC, Customer.ProfileChanged.TOPIC],
            "listed": LISTED,
        }
        clear: list[int] = []
        with self._log_pool.connection() as connection, connection.cursor() as cursor:
            # Those of earlier versions of the program may hold attributes in the clear.
            cursor.execute("DELETE FROM snapshots WHERE stream_id = %(customer_id)s", named)
            cursor.execute(
                "SELECT position, reason FROM events WHERE stream_id = %(customer_id)s"
                " AND topic = %(topic)s"
                " AND position(convert_to(%(subject)s, 'UTF8') IN state) > 0"
                " ORDER BY position LIMIT 1",
                named,
            )
            position, reason = cursor.fetchall()[0]
            cursor.execute(
                "SELECT position FROM events WHERE stream_id = %(customer_id)s AND version = 1",
                named,
            )
            since = cursor.fetchall()[0][0]
            cursor.execute(_SEALED, named)
            events, fields, positions = cursor.fetchall()[0]
            if erasure.kind == "customer":
                cursor.execute(_CLEAR, named)
                clear = cursor.fetchall()[0][0]
            elif events:
                since = positions[0]
        with self._vault_pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(
                "UPDATE erasures SET position = %s, since_position = %s, sealed_fields = %s,"
                " positions = %s, in_clear = %s, reason = coalesce(reason, %s)"
                " WHERE subject = %s",
                (position, since, int(fields), positions or [], clear, reason, erasure.subject),
            )

    def _unrecorded(self) -> list[Erasure]:
        every = self.all()
        if not every:
            return []
        with self._log_pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(
                _UNRECORDED,
                (
                    [erasure.subject for erasure in every],
                    [erasure.customer_id for erasure in every],
                    [_TOPICS[erasure.kind] for erasure in every],
                    [erasure.position for erasure in every],
                ),
            )
            missing = {row[0] for row in cursor.fetchall()}
        return [erasure for erasure in every if erasure.subject in missing]

    def _vacuum(self) -> None:
        """Takes the destroyed keys out of the table, where the vault's role may (PostgreSQL 17).

        Without it the server's own vacuum does so in time.
        """
        try:
            with self._vault_pool.connection() as connection, connection.cursor() as cursor:
                cursor.execute("VACUUM keys")
        except psycopg2.Error as error:
            log.warning("the vault was not vacuumed", error=type(error).__name__)

    def _tell(self, word: str) -> None:
        """Has other processes forget the key at once; where that fails, they soon do anyway."""
        try:
            with self._log_pool.connection() as connection, connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_notify('crm_' || current_schema(), %s)", (f"erased {word}".strip(),)
                )
        except psycopg2.Error as error:
            log.warning("others were not told of an erasure", error=type(error).__name__)


def _values(entry: Entry, reason: str | None) -> dict[str, Any]:
    return {
        "subject": entry.subject,
        "customer_id": entry.customer_id,
        "kind": entry.kind,
        "erased_at": entry.erased_at,
        "actor": entry.actor,
        "reason": reason,
    }
