"""Folds a log with the library's ProjectionRunner into a table of its own.

Environment: `PERSISTENCE_MODULE` and `POSTGRES_*` as the library has them, `EVENTS`. Writes so many
events first, in aggregates of ten, then projects them: a row for each deal, as of its last event.
Prints {"rate": events/s} of the projecting.
"""

from __future__ import annotations

import json
import os
import sys
import time
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate, DomainEventProtocol, event
from eventsourcing.persistence import Tracking
from eventsourcing.postgres import PostgresDatastore, PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from eventsourcing.utils import get_topic
from psycopg.sql import SQL

PER_DEAL = 10


class Deal(Aggregate):
    """A deal that changes its amount."""

    @event("Opened")
    def __init__(self, name: str, value: str, currency: str) -> None:
        self.name, self.value, self.currency = name, value, currency

    @event("AmountChanged")
    def change_amount(self, value: str) -> None:
        """Ask another amount."""
        self.value = value


class Deals(Application[UUID]):
    """The write side."""


class Amounts(PostgresTrackingRecorder):
    """The table, written in the transaction of its tracking."""

    def __init__(self, datastore: PostgresDatastore, **options: object) -> None:
        super().__init__(datastore, **options)  # type: ignore[arg-type]
        self.sql_create_statements.append(
            SQL("CREATE TABLE IF NOT EXISTS amounts (deal_id uuid PRIMARY KEY, amount numeric)")
        )

    def put(self, deal_id: UUID, amount: str, tracking: Tracking) -> None:
        """The amount of a deal, and how far the log is applied."""
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(
                "INSERT INTO amounts VALUES (%s, %s)"
                " ON CONFLICT (deal_id) DO UPDATE SET amount = excluded.amount",
                (deal_id, amount),
                prepare=True,
            )


class AmountsProjection(Projection[Amounts]):
    """Events into the table."""

    name = "amounts"
    topics = (get_topic(Deal.Opened), get_topic(Deal.AmountChanged))  # type: ignore[attr-defined]

    @singledispatchmethod
    def process_event(self, _: DomainEventProtocol, tracking: Tracking) -> None:
        """Nothing else is in the log."""

    @process_event.register(Deal.Opened)  # type: ignore[attr-defined]
    @process_event.register(Deal.AmountChanged)  # type: ignore[attr-defined]
    def _(self, one: DomainEventProtocol, tracking: Tracking) -> None:
        self.view.put(one.originator_id, one.value, tracking)  # type: ignore[attr-defined]


def main() -> None:
    """One measurement."""
    events = int(os.environ["EVENTS"])
    deals = Deals()
    for number in range(events // PER_DEAL):
        deal = Deal(f"deal {number}", "1000.00", "EUR")
        for change in range(PER_DEAL - 1):
            deal.change_amount(f"{change + 1000}.00")
        deals.save(deal)
    last = deals.recorder.max_notification_id() or 0
    started = time.perf_counter()
    with ProjectionRunner(
        application_class=Deals, projection_class=AmountsProjection, view_class=Amounts
    ) as runner:
        runner.projection.view.wait(deals.name, last, timeout=600)
        rate = last / (time.perf_counter() - started)
    sys.stdout.write(json.dumps({"rate": rate}) + "\n")


if __name__ == "__main__":
    main()
