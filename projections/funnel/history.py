"""The stays of a pipeline's deals as columns, read once for questions at many moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from projections.funnel.stays import ENDINGS
from projections.reading import Connection

DAY: Final = 1440
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MINUTE: Final = 60_000_000
_FOREVER: Final = np.iinfo(np.int32).max

Minutes: TypeAlias = int
"""Since the beginning of 2000, in UTC, rounded down."""


def minutes(at: datetime) -> Minutes:
    return int((at - _EPOCH).total_seconds() // 60)


@dataclass(slots=True)
class History:
    """One element a part of a stay. `stage`: place in `stages`; `to_stage` likewise, -1 for none;
    `ended`: place in ENDINGS, -1 while it lasts. Times are Minutes; `end` of what lasts lies after
    all others. `known_from` and `known_to` are places among the positions asked about. `deal` and
    the amounts are there only if a currency was asked for; amounts in others are -1."""

    stages: list[str]
    stage: NDArray[np.int16]
    revision: NDArray[np.int32]
    suspended: NDArray[np.bool_]
    entered: NDArray[np.int32]
    begin: NDArray[np.int32]
    end: NDArray[np.int32]
    ended: NDArray[np.int8]
    to_stage: NDArray[np.int16]
    known_from: NDArray[np.int16]
    known_to: NDArray[np.int16]
    deal: NDArray[np.int64]
    amount: NDArray[np.float64]
    won_amount: NDArray[np.float64]

    def seen(self, until: Minutes, known: int) -> NDArray[np.intp]:
        """Places of what had begun before `until` and was known at the position numbered
        `known`."""
        return np.flatnonzero(
            (self.begin < until) & (self.known_from <= known) & (known < self.known_to)
        )

    def lasting(self, until: Minutes, known: int) -> NDArray[np.intp]:
        """Those of them that had not ended."""
        return np.flatnonzero(
            (self.begin < until)
            & (self.end >= until)
            & (self.known_from <= known)
            & (known < self.known_to)
        )


_ROW: Final = np.dtype(
    [
        ("columns", ">i2"),
        *(
            part
            for name, kind in (
                ("deal", "V16"), ("stage", ">i2"), ("revision", ">i4"), ("suspended", "?"),
                ("entered", ">i8"), ("begin", ">i8"), ("end", ">i8"), ("ended", ">i2"),
                ("to_stage", ">i2"), ("known_from", ">i8"), ("known_to", ">i8"),
                ("amount", ">f8"), ("won_amount", ">f8"),
            )
            for part in ((f"{name}_length", ">i4"), (name, kind))
        ),
    ]
)  # fmt: skip
_HEADER: Final = 19
"""Octets before the first row."""
_CHUNK: Final = 1 << 22


class _Columns:
    """Takes binary COPY, of rows of fixed length, into small columns."""

    def __init__(self, positions: NDArray[np.int64], *, deals: bool) -> None:
        self._positions = positions
        self._deals = deals
        self._parts: list[dict[str, NDArray[Any]]] = []
        self._rest = bytearray()
        self._begin = _HEADER

    def write(self, data: bytes) -> None:
        self._rest += data
        if len(self._rest) >= _CHUNK:
            self._take()

    def _take(self) -> None:
        rows = (len(self._rest) - self._begin) // _ROW.itemsize
        if rows > 0:
            end = self._begin + rows * _ROW.itemsize
            self._parts.append(
                self._small(np.frombuffer(bytes(self._rest[self._begin : end]), _ROW))
            )
            del self._rest[:end]
            self._begin = 0

    def _small(self, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        columns: dict[str, NDArray[Any]] = {
            "stage": rows["stage"].astype(np.int16) - 1,
            "revision": rows["revision"].astype(np.int32),
            "suspended": rows["suspended"].copy(),
            **{name: _minutes(rows[name]) for name in ("entered", "begin", "end")},
            "ended": rows["ended"].astype(np.int8) - 1,
            "to_stage": rows["to_stage"].astype(np.int16) - 1,
            **{
                name: np.searchsorted(self._positions, rows[name]).astype(np.int16)
                for name in ("known_from", "known_to")
            },
        }
        none = np.zeros(0)
        columns["deal"] = none.astype(np.int64)
        columns["amount"] = columns["won_amount"] = none
        if self._deals:
            halves = np.ascontiguousarray(rows["deal"]).view(">i8").reshape(-1, 2)
            columns["deal"] = halves[:, 0].astype(np.int64) ^ halves[:, 1].astype(np.int64)
            columns["amount"] = rows["amount"].astype(np.float64)
            columns["won_amount"] = rows["won_amount"].astype(np.float64)
        return columns

    def columns(self) -> dict[str, NDArray[Any]]:
        self._take()
        if not self._parts:
            self._parts.append(self._small(np.zeros(0, _ROW)))
        joined = {}
        for name in list(self._parts[0]):  # one after the other: both copies of one are enough
            joined[name] = np.concatenate([part.pop(name) for part in self._parts])
        return joined


def _minutes(microseconds: NDArray[Any]) -> NDArray[np.int32]:
    found = microseconds.astype(np.int64) // _MINUTE
    return np.clip(found, -_FOREVER, _FOREVER).astype(np.int32)


def history(
    connection: Connection,
    pipeline_id: UUID,
    *,
    until: datetime,
    positions: Sequence[int],
    currency: str | None = None,
) -> History:
    """What began up to `until`, as known at any of the positions, which rise.

    With a `currency`, the amounts of the deals in it are there.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT stage FROM visit_period WHERE pipeline_id = %s ORDER BY 1",
            [str(pipeline_id)],
        )
        stages = [row[0] for row in cursor.fetchall()]
        columns = _Columns(np.array(positions, np.int64), deals=currency is not None)
        query = """COPY (
            SELECT deal_id, coalesce(array_position(%(stages)s::text[], stage), 0)::int2,
                revision::int4, status = 'suspended', entered_at, valid_from, valid_to,
                coalesce(array_position(%(endings)s::text[], ended), 0)::int2,
                coalesce(array_position(%(stages)s::text[], to_stage), 0)::int2,
                known_from, known_to,
                CASE WHEN currency = %(currency)s::text THEN amount ELSE -1 END::float8,
                CASE WHEN currency = %(currency)s::text THEN coalesce(won_amount, 0) ELSE -1
                    END::float8
            FROM visit_period
            WHERE pipeline_id = %(pipeline_id)s::uuid AND valid_from <= %(until)s
                AND known_from <= %(last)s AND known_to > %(first)s
            ) TO STDOUT (FORMAT binary)"""
        parameters = {
            "stages": stages,
            "endings": list(ENDINGS),
            "pipeline_id": str(pipeline_id),
            "until": until,
            "first": positions[0],
            "last": positions[-1],
            "currency": currency,
        }
        cursor.copy_expert(cursor.mogrify(query, parameters).decode(), columns, 1 << 18)
    return History(stages=stages, **columns.columns())
