"""Kafka to a read model: one worker of a projection's consumer group."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import psycopg2
import structlog

from infra import tracing
from infra.eventstore.feed import Head, Recorded
from infra.kafka import KafkaUnavailable, NotOurs, arrived
from infra.metrics import WorkerMetrics
from infra.settings import Settings
from projections.projector import (
    LateOwner,
    LogBehind,
    NewerProgram,
    OtherLog,
    Projector,
    RebuildNeeded,
)
from projections.rebuild import RebuildRunning
from workers.membership import Fenced, Limits, Membership, WrongPartitions
from workers.pacing import Pace
from workers.sieve import Sieve, Verdict
from workers.watchdogs import HoleWatch, StallWatch

log = structlog.get_logger(__name__)

T = TypeVar("T")

ENDINGS = (NewerProgram, OtherLog, LogBehind, Fenced, WrongPartitions)
"""Errors that trying again does not mend."""

_BATCH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Patience:
    """Times in seconds."""

    poll: float = 0.2
    """Longest wait for records."""
    hole: float = 5.0
    """Until a hole that is not filled is told of, and the partition read from its beginning."""
    stall: float = 30.0
    """Until a partition that is not read counts as stalled, and a new consumer is made; or, if it
    is nobody's, the partitions are shared out anew."""
    look: float = 2.0
    """Between two looks at the topic and the log."""
    commit: float = 1.0
    """Between two tellings of offsets to the group, if they have changed."""
    unchanged: float = 5.0
    """Between two, if they have not: the telling shows whether one is a member still."""
    rest: float = 5.0
    """The longest pause after an error."""


@dataclass(slots=True)
class _Taken:
    """What is to be applied of the records of one poll."""

    events: list[Recorded] = field(default_factory=list)
    reached: dict[int, int] = field(default_factory=dict)
    traces: list[str | None] = field(default_factory=list)
    duplicates: int = 0
    foreign: dict[UUID, int] = field(default_factory=dict)


class Consumer:
    """Carries the topic into a read model, for the partitions that the group gives this worker.

    What counts is in the read model's database: positions, and from which offsets to go on. They
    are read back whenever partitions come or go and after every error, and reading goes on from
    there. So whatever is lost, repeated or late, in Kafka or here, each event is applied once and
    none is skipped; see `workers.sieve`.

    Not thread-safe. `step` blocks for a fraction of a second, or for as long as a batch takes; a
    batch runs in another thread while this one keeps the membership.
    """

    def __init__(
        self,
        projector: Projector,
        settings: Settings,
        metrics: WorkerMetrics,
        *,
        head: Callable[[], Head],
        rebuild: Callable[[], object],
        instance: str,
        limits: Limits | None = None,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`head`: of the log. `rebuild` fills the read model anew; may raise `RebuildRunning`.
        `instance` is this worker's name in the group, the same after a restart."""
        self._projector = projector
        self._settings = settings
        self._metrics = metrics
        self._head = head
        self._rebuild = rebuild
        self._instance = instance
        self._limits = limits or Limits()
        self._patience = patience or Patience()
        self._clock = clock
        self._name = projector.projection.name
        self._topics = frozenset(projector.projection.topics)
        self._log = log.bind(projection=projector.projection.id, instance=instance)

        self._member: Membership | None = None
        self._hands = ThreadPoolExecutor(1, f"{self._name}-batch")
        self._keep_alive = min(1.0, self._limits.poll_deadline / 10)
        self._settled = False
        self._sieve = Sieve(UUID(int=0), {})
        self._starts: dict[int, int] = {}
        self._pace = Pace(min(_BATCH_SECONDS, self._limits.poll_deadline / 10))
        self._holes = HoleWatch(self._patience.hole)
        self._stalls = StallWatch(self._patience.stall)
        self._others = StallWatch(self._patience.stall)
        self._rewound: dict[int, int] = {}
        self._known_foreign: set[UUID] = set()
        self._stalled: set[int] = set()
        self._outdated: str | None = None
        self._failures = 0
        self._resting_until = 0.0
        self._looked = self._checked = self._hinted = self._committed_at = clock()
        self._committed: dict[int, int] = {}
        self._away: dict[str, float] = {}

    @property
    def positions(self) -> Mapping[int, int]:
        """How far the partitions are applied that this worker has."""
        return dict(self._sieve.positions) if self._settled else {}

    @property
    def group(self) -> str:
        """Of this projection and topic: installations that share a Kafka do not share groups."""
        return f"crm-{self._name}-{self._settings.kafka_topic}"

    def step(self) -> int:
        """Take part in the group and apply what has come; how many events were applied.

        Raises what is in `ENDINGS`; after any other error it has logged it, rests for a while
        without losing its membership, and goes on from what the database says.
        """
        self._metrics.beat(f"project-{self._name}")
        try:
            if self._clock() < self._resting_until:
                return self._rest()
            applied = self._round()
        except ENDINGS:
            self._settled = False
            raise
        except LateOwner as reason:
            self._settled = False
            self._metrics.late_owner(self._name)
            self._log.info("another worker was quicker", reason=str(reason))
            self._tire()
        except RebuildNeeded as reason:
            self._settled = False
            self._outdated = str(reason)
        except KafkaUnavailable as error:
            self._gone("Kafka", error)
            self._leave()
            self._tire()
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            self._settled = False
            self._gone("PostgreSQL", error)
            self._tire()
        except Exception:
            self._settled = False
            self._tire()
            log.exception("worker failed", projection=self._name, failures=self._failures)
        else:
            return applied
        return 0

    def close(self) -> None:
        """Leave in good order: the batch under way, if any, is done before."""
        self._hands.shutdown()
        self._leave()
        self._projector.close()

    # ---- one round ----

    def _round(self) -> int:
        member = self._member
        if member is None:
            member = self._member = Membership(
                self._settings, self.group, self._instance, self._limits
            )
            self._log.info("reads from Kafka", group=self.group, topic=self._settings.kafka_topic)
        if self._outdated is not None:
            self._fill_anew(member, self._outdated)
            return 0
        if member.rebalanced() or not self._settled:
            self._settle(member)
            return 0
        polled = member.poll(self._patience.poll, self._pace.records)
        if member.rebalanced():
            # What came along is read again, from where the database says.
            return 0
        began = self._clock()
        try:
            applied = self._take_in(member, polled)
        finally:
            self._pace.took(sum(map(len, polled.values())), self._clock() - began)
        if self._settled:
            self._failures = 0
            self._watch_holes(member)
            self._tell_group(member)
            self._look(member)
        return applied

    def _settle(self, member: Membership) -> None:
        """Own what is assigned, and go on where the read model is."""
        self._settled = False
        assigned = member.assigned()

        def ask() -> tuple[dict[int, int], dict[int, tuple[UUID, int]], UUID]:
            # Others may write, or put another set of tables in place, while this is asked.
            before = self._projector.offsets(assigned)
            positions = self._projector.own(assigned)
            after = self._projector.offsets(assigned)
            hints = {p: min(before[p], after[p]) for p in before.keys() & after.keys()}
            return positions, hints, self._projector.epoch

        positions, hints, epoch = self._meanwhile(member, ask)
        self._back("PostgreSQL")
        if member.rebalanced():
            return
        self._starts = {
            partition: offset
            for partition, (topic, offset) in hints.items()
            if topic == member.topic_id
        }
        before, self._sieve = self._sieve, Sieve(epoch, positions)
        for partition, hole in before.holes.items():
            if positions.get(partition) == hole.position and before.epoch == epoch:
                self._sieve.holes[partition] = hole  # its time goes on
                if self._rewound.get(partition) == hole.position:
                    self._starts.pop(partition, None)  # nothing says that this came to its end
        member.read_from({partition: self._starts.get(partition) for partition in assigned})
        for partition in before.positions.keys() - positions.keys():
            self._metrics.disown(self._name, partition)
            self._metrics.group_left(self.group, self._settings.kafka_topic, partition)
        for partition, position in positions.items():
            self._metrics.position(self._name, partition, position)
        self._stalls.forget()
        self._settled = True
        if before.positions.keys() != positions.keys():
            self._log.info("partitions", owned=sorted(positions))

    def _fill_anew(self, member: Membership, reason: str) -> None:
        self._log.info("rebuilding", reason=reason)
        self._outdated = None  # or so it seems: `own` will tell
        try:
            self._meanwhile(member, self._rebuild)
        except RebuildRunning:
            self._log.info("another process rebuilds")
            self._tire()

    def _take_in(self, member: Membership, polled: Mapping[int, list[Any]]) -> int:
        """Apply what the sieve lets through, in one transaction with the positions."""
        taken = self._sifted(polled)
        if taken.duplicates:
            self._metrics.duplicates(self._name, taken.duplicates)
        if taken.foreign and not self._only_old(taken.foreign):
            self._settled = False
            return 0
        if polled and self._clock() - self._hinted >= self._patience.look:
            # Where nothing but duplicates comes, a restart should not read all of them again.
            self._hinted = self._clock()
            for partition in polled:
                taken.reached.setdefault(partition, self._sieve.positions[partition])
        if not taken.reached:
            return 0
        offsets = {
            partition: (member.topic_id, self._sieve.offsets[partition])
            for partition in taken.reached
            if partition in self._sieve.offsets
        }
        began = time.time()

        self._meanwhile(member, lambda: self._projector.apply(taken.events, taken.reached, offsets))
        tracing.finished(
            f"project {self._name}", taken.traces, began, {"projection": self._name}, "consumer"
        )
        for partition, position in taken.reached.items():
            self._metrics.position(self._name, partition, position)
        return len(taken.events)

    def _sifted(self, polled: Mapping[int, list[Any]]) -> _Taken:
        taken, sieve = _Taken(), self._sieve
        for partition, records in polled.items():
            for record in records:
                try:
                    found = arrived(record)
                except NotOurs as reason:
                    self._log.warning("a record that is not of this product", reason=str(reason))
                    continue
                before = sieve.positions[partition]
                verdict = sieve.take(found)
                if verdict is Verdict.APPLIED:
                    if found.topic in self._topics:
                        try:
                            taken.events.append(found.recorded())
                        except NotOurs as reason:
                            # What follows it shows the hole that it leaves.
                            sieve.positions[partition] = before
                            self._log.error("a record that makes no sense", reason=str(reason))
                            continue
                        taken.traces.append(found.traceparent)
                    taken.reached[partition] = found.position
                elif verdict is Verdict.DUPLICATE:
                    taken.duplicates += 1
                elif verdict is Verdict.OTHER_EPOCH:
                    taken.foreign[found.epoch] = taken.foreign.get(found.epoch, 0) + 1
        return taken

    def _only_old(self, foreign: Mapping[UUID, int]) -> bool:
        """Whether records of other logs may be passed over: they may if the log is still the one
        that the read model is of. If not, what it should become of has to be decided."""
        self._metrics.other_epoch(self._name, sum(foreign.values()))
        unknown = foreign.keys() - self._known_foreign
        if unknown:
            if self._head().epoch != self._sieve.epoch:
                return False
            self._known_foreign |= unknown
            self._log.warning(
                "records of another log are passed over",
                epochs=sorted(map(str, unknown)),
                own=str(self._sieve.epoch),
            )
        return True

    # ---- now and then ----

    def _watch_holes(self, member: Membership) -> None:
        overdue, filled = self._holes.look(self._sieve.holes, self._clock())
        for partition in filled:
            if partition not in self._sieve.positions:
                continue  # another worker's now, and open as before
            self._metrics.hole(self._name, partition, False)
            self._log.info("hole filled", partition=partition)
        for partition, hole in overdue.items():
            self._metrics.hole(self._name, partition, True)
            again = self._rewound.get(partition) != hole.position
            self._log.error(
                "events are missing in the topic: the partition waits for them",
                partition=partition,
                after=hole.position,
                needed=hole.needed,
                reads_again=again,
                way_out=f"if the relay does not send them again: crm rebuild {self._name}",
            )
            if again:
                self._rewound[partition] = hole.position
                member.read_from({partition: None})

    def _tell_group(self, member: Membership) -> None:
        offsets = {**self._starts, **self._sieve.offsets}
        due = self._patience.commit if offsets != self._committed else self._patience.unchanged
        now = self._clock()
        if now - self._committed_at < due:
            return
        offsets.update({p: 0 for p in self._sieve.positions if p not in offsets})
        if offsets:
            member.commit(offsets)
        self._committed_at, self._committed = now, offsets

    def _look(self, member: Membership) -> None:
        """At the topic, the log, and whether every partition is read."""
        now = self._clock()
        if now - self._looked < self._patience.look:
            return
        self._looked = now
        if member.look():
            self._log.warning("the topic was made anew: it is read from its beginning")
            self._settled = False
            return
        self._meanwhile(member, self._projector.look)
        self._metrics.parked(self._name, self._projector.counters.parked)
        for partition, end in member.ends().items():
            at = self._sieve.offsets.get(partition, self._starts.get(partition, 0))
            self._metrics.group_lag(self.group, self._settings.kafka_topic, partition, end - at, at)
        if now - self._checked >= self._patience.stall / 3:
            self._checked = now
            self._check(member)

    def _check(self, member: Membership) -> None:
        """Whether Kafka is there, and every partition is read."""
        try:
            offsets = member.offsets()
        except KafkaUnavailable as error:
            self._gone("Kafka", error)
            self._stalls.forget()  # nothing can be read now; afterwards the time begins
            if self._clock() - self._away["Kafka"] >= self._patience.stall:
                self._away["Kafka"] = self._clock()
                self._leave()  # it may be back at another address
            return
        self._back("Kafka")
        self._act_on_stalls(self._stalls.look(offsets, self._clock()), offsets)
        if self._settled:
            self._look_after_others(member)

    def _look_after_others(self, member: Membership) -> None:
        """Whether others' partitions are anybody's.

        Partitions change hands in two steps: one member gives up some, and joins again so that
        another gets them. A static member that is killed in between comes back without this: it
        is given what it was to keep, and nobody joins again.
        """
        head, positions = self._meanwhile(
            member, lambda: (self._head().position, self._projector.all_positions())
        )
        others = {p: (at, head) for p, at in positions.items() if p not in self._sieve.positions}
        still = self._others.look(others, self._clock())
        if not still:
            return
        try:
            nobodys = still & self._meanwhile(member, member.unassigned)
        except KafkaUnavailable:
            return  # the next look will tell
        if nobodys:
            self._log.error(
                "partitions are nobody's: they are shared out anew", partitions=sorted(nobodys)
            )
            self._others.forget()
            member.share_anew()

    def _act_on_stalls(
        self, stalled: set[int], offsets: Mapping[int, tuple[int | None, int]]
    ) -> None:
        for partition in self._stalled - stalled:
            self._metrics.stalled(self._name, partition, False)
        for partition in stalled:
            self._metrics.stalled(self._name, partition, True)
            following, end = offsets[partition]
            self._log.error(
                "a partition is not read although there is something: a new consumer is made",
                partition=partition,
                offset=following,
                end=end,
            )
        self._stalled = stalled
        if stalled:
            self._leave()

    # ---- when something is wrong ----

    def _meanwhile(self, member: Membership, work: Callable[[], T]) -> T:
        """Does it in the other thread; if that takes long, stays a member all the same."""
        future = self._hands.submit(work)
        trouble: Exception | None = None
        while not wait([future], self._keep_alive).done:
            self._metrics.beat(f"project-{self._name}")
            if trouble is None:
                try:
                    member.stay()
                except (KafkaUnavailable, Fenced) as error:
                    trouble = error  # what is under way is right all the same
        result = future.result()
        if trouble is not None:
            raise trouble
        return result

    def _rest(self) -> int:
        if self._member is not None:
            self._member.stay(self._patience.poll)
        else:
            time.sleep(min(self._patience.poll, max(0.0, self._resting_until - self._clock())))
        return 0

    def _tire(self) -> None:
        """The next round waits, the longer the more have failed in a row."""
        pause = 0.0 if self._failures == 0 else 0.1 * 2 ** min(self._failures - 1, 10)
        self._failures += 1
        self._resting_until = self._clock() + min(self._patience.rest, pause)

    def _gone(self, what: str, error: Exception) -> None:
        if what not in self._away:
            self._away[what] = self._clock()
            self._log.error(f"{what} cannot be used, trying again", error=str(error).strip())

    def _back(self, what: str) -> None:
        if what in self._away:
            del self._away[what]
            self._log.info(f"{what} can be used again")

    def _leave(self) -> None:
        member, self._member = self._member, None
        self._settled = False
        if member is not None:
            member.close()
