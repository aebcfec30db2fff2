"""A process that appends under the head's lock, and lingers there until it is told to go on.

Arguments: the persistence module's settings as JSON. It says `holding` with the lock in its hands,
waits for a line, and then says what became of its command.
"""

from __future__ import annotations

import json
import sys
from typing import Any
from uuid import UUID

from eventsourcing.utils import Environment

from infra.eventstore.factory import Factory
from infra.logging import configure
from tests.integration.eventstore.stepping import command, event, receipt


def say(what: str) -> None:
    sys.stdout.write(what + "\n")
    sys.stdout.flush()


class Lingering(dict[UUID | str, UUID | str]):
    """Partition keys that take their time when they are looked up under the lock."""

    lookups = 0

    def get(self, key: Any, default: Any = None) -> Any:
        self.lookups += 1
        if self.lookups == 3:  # two are for the group that is refused, before any lock
            say("holding")
            sys.stdin.readline()
        return default


def main() -> None:
    configure("json")
    factory = Factory(Environment(name="Test", env=json.loads(sys.argv[1])))
    same = event()
    lingering = command(event(), receipt=receipt("stopped"))
    lingering.partition_keys = Lingering()
    committer = factory.committer
    committer.submit(command(same)).result()
    lingering.events.append(same)  # refuses the group, so that it is done under the lock
    outcome = committer.submit(lingering).exception()
    say(type(outcome).__name__)
    lingering.events.pop()
    say(str(committer.submit(lingering).result().last))
    factory.close()


main()
