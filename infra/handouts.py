"""What left the product: exports and replays, which nobody can call back."""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from infra.postgres import Connection, Pool


@dataclass(frozen=True, slots=True)
class Handout:
    at: datetime
    actor: str
    kind: Literal["export", "replay"]
    position: int
    """Nothing recorded after it is in the handout."""
    what: str
    personal: bool
    """Whether personal text was in it in the clear."""


def at_the_machine() -> str:
    """The actor of a handout by a command: the login that runs this program."""
    try:
        return f"terminal:{getpass.getuser()}"
    except (KeyError, OSError):  # a number without a name, as in a container
        return f"terminal:{os.getuid()}"


def record(
    connection: Connection,
    *,
    actor: str,
    kind: Literal["export", "replay"],
    position: int,
    what: str,
    personal: bool,
) -> None:
    """Notes a handout, before it is given away. The search path leads to the log; the caller
    commits. Raises what the driver raises."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO handouts (actor, kind, position, what, personal)"
            " VALUES (%s, %s, %s, %s, %s)",
            (actor, kind, position, what, personal),
        )


class Replayed:
    """Notes what a replay hands out in the clear; see ``infra.history.texts.OnHandout``."""

    def __init__(self, pool: Pool) -> None:
        """`pool`: finds the tables of the log, and may write."""
        self._pool = pool

    def __call__(self, *, kind: str, actor: str, first: int, last: int) -> None:
        with self._pool.connection() as connection, connection:
            record(
                connection,
                actor=actor,
                kind="replay",
                position=last,
                what=f"{kind} of events from position {first:,} on",
                personal=True,
            )


def between(pool: Pool, position: int, until: datetime, limit: int) -> list[Handout]:
    """Those that hold what was recorded at the position and were made before `until`, the earliest
    first, at most `limit`."""
    with pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT at, actor, kind, position, what, personal FROM handouts"
            " WHERE position >= %s AND at < %s ORDER BY number LIMIT %s",
            (position, until, limit),
        )
        return [Handout(*row) for row in cursor.fetchall()]
