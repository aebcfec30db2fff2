"""Rows of a view into a Parquet file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from projections.snapshot import BiView
from workers.exporting.files import DECIMALS, Row

_GROUP: Final = 100_000
"""Rows of a row group of Parquet."""

_ARROW: Final[Mapping[str, Any]] = {
    "smallint": pa.int32(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp with time zone": pa.timestamp("us", tz="UTC"),
    "numeric": pa.decimal128(38, DECIMALS),
    "real": pa.float64(),
    "double precision": pa.float64(),
}


class ParquetFile:
    """Numbers as decimal128(38, 12), times in UTC; the comments are with the columns."""

    def __init__(self, path: Path, view: BiView, about: Mapping[str, str]) -> None:
        """`about` is kept with the schema."""
        fields = [
            pa.field(c.name, _ARROW.get(c.type, pa.string()), metadata={"comment": c.comment or ""})
            for c in view.columns
        ]
        self._schema = pa.schema(fields, metadata={"comment": view.comment or "", **about})
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._waiting: list[Any] = []
        self._count = 0

    def write(self, rows: Sequence[Row]) -> None:
        """Raises pyarrow.ArrowInvalid for a number too large, which no sum of amounts is."""
        columns = [
            pa.array(texts, pa.string()).cast(field.type)
            for texts, field in zip(zip(*rows, strict=True), self._schema, strict=True)
        ]
        self._waiting.append(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        self._count += len(rows)
        if self._count >= _GROUP:
            self._flush()

    def close(self) -> None:
        if self._waiting:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        table = pa.Table.from_batches(self._waiting, self._schema)
        self._writer.write_table(table, row_group_size=_GROUP)
        self._waiting, self._count = [], 0
