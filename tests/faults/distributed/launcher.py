"""Runs ``crm`` altered: ``launcher ALTERATION… -- ARGUMENTS``.

- ``clock=SECONDS``: the process's clock is off by so many seconds
- ``clock=backwards``: it falls by an hour in the middle of the work, and stays behind
- ``thrice=SEED``: the relay's producer sends every record three times, later ones in between
- ``lossy=SEED``: the relay's producer loses a record now and then; those behind it arrive
- ``interleaved=SEED``: partitions are delivered in any order and in small pieces
- ``slow=SECONDS``: an event takes so long to apply, and the group waits six seconds only
- ``newer=NAME``: the program is a later one, with another version of this read model
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from types import ModuleType
from typing import Any

from kafka.errors import KafkaError

from infra.kafka import WATERMARK, make_consumer, make_producer
from projections.catalogue import PROJECTIONS
from projections.projector import Projector
from workers import cli, consuming, membership, wiring
from workers import relay as relays

FALL = 3.0
"""Seconds after its start at which a clock that runs backwards does so."""

LOSSES = 1 / 50
"""Of the events that a lossy producer is given."""


def replace(module: ModuleType, name: str, by: object) -> None:
    """Whoever looks for it there finds the other."""
    assert hasattr(module, name)
    setattr(module, name, by)


def clock(how: str) -> None:
    begun = time.monotonic()

    def now() -> datetime:
        if how != "backwards":
            off = float(how)
        else:
            off = -3600.0 if time.monotonic() - begun > FALL else 0.0
        return datetime.now(UTC) + timedelta(seconds=off)

    right = wiring.now
    for module in list(sys.modules.values()):
        if getattr(module, "now", None) is right:
            module.now = now  # type: ignore[attr-defined]


class Producer:
    """kafka-python's, with `send` altered."""

    def __init__(self, real: Any, random: Random) -> None:
        self._real = real
        self._random = random

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class Thrice(Producer):
    def __init__(self, real: Any, random: Random) -> None:
        super().__init__(real, random)
        self._again: list[Callable[[], Any]] = []

    def send(self, topic: str, **record: Any) -> Any:
        answer = self._real.send(topic, **record)
        again = partial(self._real.send, topic, **record)
        self._again += [again, again]
        for _ in range(2):
            self._again.pop(self._random.randrange(len(self._again)))()
        return answer


class Lossy(Producer):
    def send(self, topic: str, **record: Any) -> Any:
        if record["key"] != WATERMARK.encode() and self._random.random() < LOSSES:
            return LostInFlight()
        return self._real.send(topic, **record)


class LostInFlight:
    """What became of a record, as kafka-python's futures tell: known after a while."""

    def __init__(self) -> None:
        self._known_at = time.monotonic() + 0.2
        self.exception = KafkaError("lost in flight")

    @property
    def is_done(self) -> bool:
        return time.monotonic() >= self._known_at

    def failed(self) -> bool:
        return self.is_done

    def get(self, timeout: float) -> Any:
        time.sleep(max(0.0, min(timeout, self._known_at - time.monotonic())))
        raise self.exception


def producing(kind: Callable[[Any, Random], Any], seed: str) -> None:
    random = Random(seed)
    real = make_producer
    replace(relays, "make_producer", lambda settings: kind(real(settings), random))


def interleaved(seed: str) -> None:
    random = Random(seed)
    make, poll = make_consumer, membership.Membership.poll

    def small(*given: Any, **options: Any) -> Any:
        pieces = {"max_partition_fetch_bytes": 4_000, "fetch_max_bytes": 12_000}
        return make(*given, **{**options, **pieces})

    def shuffled(self: Any, seconds: float, most: int) -> dict[int, list[Any]]:
        polled = list(poll(self, seconds, random.randrange(1, most + 1)).items())
        random.shuffle(polled)
        return dict(polled)

    replace(membership, "make_consumer", small)
    membership.Membership.poll = shuffled  # type: ignore[method-assign]


def slow(seconds: str) -> None:
    apply = Projector.apply

    def slowly(self: Projector, events: Any, *more: Any, **others: Any) -> None:
        time.sleep(float(seconds) * len(events))
        apply(self, events, *more, **others)

    Projector.apply = slowly  # type: ignore[method-assign]
    impatient = partial(membership.Limits, poll_deadline=6.0, session=6.0)
    replace(consuming, "Limits", impatient)


def newer(name: str) -> None:
    # Of the class: the program makes its read models anew, by the definitions in force.
    kind = type(PROJECTIONS[name])
    kind.version += 1


ALTERATIONS: dict[str, Callable[[str], None]] = {
    "clock": clock,
    "thrice": partial(producing, Thrice),
    "lossy": partial(producing, Lossy),
    "interleaved": interleaved,
    "slow": slow,
    "newer": newer,
}


def main() -> None:
    divider = sys.argv.index("--")
    alterations, arguments = sys.argv[1:divider], sys.argv[divider + 1 :]
    for each in alterations:
        name, _, how = each.partition("=")
        ALTERATIONS[name](how)
    sys.argv = ["crm", *arguments]
    cli.main()


main()
