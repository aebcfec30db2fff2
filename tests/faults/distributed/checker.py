"""What must be true of the log and the read models once everything works again."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from random import Random
from typing import Any
from uuid import UUID, uuid4

from infra.eventstore.doorbell import Doorbell
from infra.eventstore.feed import StoreFeed
from infra.migrations import migrate
from infra.postgres import Pool, connect, quote
from projections.catalogue import PROJECTIONS
from projections.projection import Projection
from projections.projector import Projector
from tests.faults.distributed.deployment import Deployment, wait_until
from tests.faults.distributed.load import Asked, Caller, ask

PATIENCE = 120.0
REPEATED = 40
"""How many of the last commands are asked for once more."""


class Checker:
    """Raises AssertionError for the first thing that is not as it must be."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._journal = deployment.journal
        self._query = deployment.database.query

    def everything(
        self, random: Random, parked: Iterable[UUID] = (), changed: int | None = None
    ) -> None:
        """`parked`: keys whose events cannot be applied, and which therefore must wait. `changed`:
        the position of a sealed event that is not what it was."""
        self.log()
        self.commands()
        self.answers_repeat(random)
        self.caught_up()
        self.parked(set(parked))
        self.read_models()
        self.sealed(changed)
        if not parked:
            self.doctor()

    def log(self) -> None:
        """Positions 1..N and versions 1..n, each once; recorded_at never falls."""
        end, last, count = self._query(
            "SELECT head.position, (SELECT coalesce(max(position), 0) FROM log.events),"
            " (SELECT count(*) FROM log.events) FROM log.head"
        )[0]
        assert end == last == count, f"head {end}, last {last}, {count} events"
        gaps = self._query(
            "SELECT position, version, row_number FROM (SELECT position, version, row_number()"
            " OVER (PARTITION BY stream_id ORDER BY position) FROM log.events) AS numbered"
            " WHERE version <> row_number LIMIT 5"
        )
        assert not gaps, f"versions are not 1..n: {gaps}"
        falls = self._query(
            "SELECT position FROM (SELECT position, recorded_at, lag(recorded_at)"
            " OVER (ORDER BY position) AS before FROM log.events) AS pair"
            " WHERE recorded_at < before LIMIT 5"
        )
        assert not falls, f"recorded_at falls at {falls}"

    def commands(self) -> None:
        """Each ok command is in the log once, as it was told; of each refused one, nothing is."""
        assert not self._journal.unknown()
        events: dict[str, list[tuple[int, UUID, UUID, int]]] = defaultdict(list)
        others = 0
        for position, command, reason, stream, version in self._query(
            "SELECT position, command_id, reason, stream_id, version FROM log.events"
            " ORDER BY position"
        ):
            if reason is None or ":" not in reason:
                others += 1
            else:
                events[reason].append((position, command, stream, version))
        receipts = {
            key: (position, id_, version, status)
            for key, position, id_, version, status in self._query(
                "SELECT key, position, id, version, status FROM log.receipts"
            )
        }
        counted = 0
        for asked in self._journal.ok():
            answer = asked.answer
            assert answer is not None
            key = asked.command.key
            found = events.pop(key, [])
            counted += len(found)
            told = (answer["position"], UUID(answer["id"]), answer["version"], answer["status"])
            assert receipts.pop(key, None) == told, f"{asked} has another receipt than {told}"
            assert len({command for _, command, _, _ in found}) <= 1, f"{asked} was done twice"
            assert found or not asked.command.adds, f"{asked} is lost"
            if found:
                first, last = found[0][0], found[-1][0]
                assert last == told[0], f"{asked} is at {last}"
                assert last - first + 1 == len(found), f"{asked} is torn: {found}"
                assert (told[1], told[2]) in {(each[2], each[3]) for each in found}, f"{asked}"
        assert not events, f"done, but refused or never asked: {list(events.items())[:3]}"
        ours = {asked.command.key for asked in self._journal.refused()}
        assert not ours & receipts.keys(), "a refused command has a receipt"
        assert counted + others == self._deployment.end()
        statuses = Counter(
            refusal for asked in self._journal.refused() if (refusal := asked.refusal)
        )
        odd = {told for told in statuses if told[0] not in (400, 403, 404, 409, 412, 422)}
        assert not odd, f"refused in an odd way: {odd}"

    def lost(self) -> int:
        """How many ok commands are not in the log."""
        receipts = {key for (key,) in self._query("SELECT key FROM log.receipts")}
        recorded = {key for (key,) in self._query("SELECT DISTINCT reason FROM log.events")}
        return sum(
            asked.command.key not in receipts
            or (asked.command.adds and asked.command.key not in recorded)
            for asked in self._journal.ok()
        )

    def answers_repeat(self, random: Random) -> None:
        """The same key gives the same answer, by whichever process."""
        known = self._journal.ok()
        caller = Caller(self._deployment.urls, self._deployment.token)
        doubted = [asked for asked in known if asked.doubts]
        try:
            for asked in [*doubted[-REPEATED:], *known[-REPEATED:]]:
                again = Asked(asked.command)
                deadline = time.monotonic() + PATIENCE
                while not again.known:
                    ask(caller, again, caller.choice(random))
                    assert time.monotonic() < deadline, f"no answer: {again}"
                assert again.answer == asked.answer, f"{asked} was then told {again.answer}"
        finally:
            caller.close()

    def caught_up(self) -> None:
        """Every read model comes to the log's end, in every partition."""
        wanted = {self._deployment.projection(name).id for name in self._deployment.models}
        end = self._deployment.end()
        deadline = time.monotonic() + PATIENCE
        while True:
            positions: dict[str, list[int]] = defaultdict(list)
            for (projection, _), position in self._deployment.positions().items():
                positions[projection].append(position)
            if all(positions[each] and min(positions[each]) >= end for each in wanted):
                return
            assert time.monotonic() < deadline, (
                f"the log ends at {end}, the read models are at"
                f" {dict(positions)}, the relay at {self._deployment.published()}"
            )
            time.sleep(0.1)

    def parked(self, expected: set[UUID]) -> None:
        rows = self._query("SELECT projection, key, position, error FROM read.parked")
        found = {row[1] for row in rows}
        assert found == expected, f"parked: {rows[:5]}"

    def read_models(self) -> None:
        """Every table is what a pure fold of the log gives."""
        for name in self._deployment.models:
            self._compare(self._deployment.projection(name))

    def sealed(self, changed: int | None = None) -> None:
        """The log is sealed to its end, and is what was signed, but for the event at `changed`."""
        end = self._deployment.end()
        wait_until(lambda: self._deployment.sealed() >= end, what=f"sealing up to {end}")
        code, said = self._deployment.crm("verify")
        assert code == (changed is not None), said
        assert changed is None or f"position {changed:,}: changed" in said, said

    def doctor(self) -> None:
        """Finds nothing, but that read models are empty which nobody fills here."""
        code, said = self._deployment.crm("doctor")
        idle = PROJECTIONS.keys() - set(self._deployment.models)
        empty = tuple(f"PROBLEM  read model {name}: not filled" for name in idle)
        problems = [line for line in said.splitlines() if line.startswith("PROBLEM")]
        assert [line for line in problems if not line.startswith(empty)] == [], said
        assert code == bool(problems), said

    def _compare(self, projection: Projection) -> None:
        schema = f"fold_{uuid4().hex[:12]}"
        url = self._deployment.database.admin_url
        migrate(url, {"read": schema, "bi": f"{schema}_bi"})
        try:
            _fold(projection, url, schema)
            for table in projection.tables():
                live, folded = (self._sum(where, table) for where in ("read", schema))
                assert live == folded, (
                    f"{table}: {live[0]} rows, by the log {folded[0]}:"
                    f" {self._differing(table, schema)}"
                )
        finally:
            self._query(
                f"SET client_min_messages = warning; DROP SCHEMA {schema}, {schema}_bi CASCADE"
            )

    def _sum(self, schema: str, table: str) -> tuple[Any, ...]:
        return self._query(
            "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)"
            f" FROM {quote(schema)}.{table} AS t"
        )[0]

    def _differing(self, table: str, schema: str) -> list[str]:
        live, folded = (f"SELECT t::text FROM {s}.{table} AS t" for s in ("read", schema))
        found = []
        for name, query in (
            ("live", f"{live} EXCEPT ALL {folded}"),
            ("by the log", f"{folded} EXCEPT ALL {live}"),
        ):
            found += [f"{name}: {row[0]}" for row in self._query(f"{query} ORDER BY 1 LIMIT 3")]
        return found


def _fold(projection: Projection, url: str, schema: str) -> None:
    how: dict[str, Any] = {"role": "crm_projector", "application_name": "fold"}
    with (
        Pool(url, size=4, search_path=[schema], **how) as pool,
        Pool(url, size=4, search_path=["log"], autocommit=True, **how) as log_pool,
    ):
        doorbell = Doorbell(lambda: connect(url, autocommit=True))  # never started: nobody waits
        feed = StoreFeed(log_pool, doorbell, projection.topics)
        projector = Projector(projection, feed, pool, schema=schema, bi_schema=None)
        try:
            while projector.step():
                pass
        finally:
            projector.close()


class Watch:
    """Looks at the positions of the read models again and again: none ever goes back, unless the
    database server itself crashes. What a crash takes of a read model are its last transactions
    whole, rows and position: projectors do not wait for the disk, as the log has the events."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._seen: dict[tuple[str, int], int] = {}
        self._crashes = 0
        self.looks = 0

    def look(self) -> None:
        database = self._deployment.database
        crashes = database.crashes
        positions = {}
        with suppress(Exception):  # the database may be away
            positions = self._deployment.positions()
        if database.crashes != crashes:
            return  # it is not known what was read before the crash, and what after
        if crashes != self._crashes:
            self._seen, self._crashes = {}, crashes
        for place, position in positions.items():
            before = self._seen.get(place, 0)
            assert position >= before, f"{place} went back from {before} to {position}"
            self._seen[place] = position
        self.looks += bool(positions)

    def until(self, condition: Callable[[], Any], patience: float = PATIENCE) -> None:
        """Looks until the condition holds."""
        deadline = time.monotonic() + patience
        while not condition():
            self.look()
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.02)
        self.look()
