"""The contract as it is kept in the repository: schemas, and rows of the log of every version."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from jsonschema_rs import Draft202012Validator

from domain.aggregate import LedgerAggregate
from infra.contract.bodies import event_classes, schema_path, topic_of
from infra.eventstore import feed
from infra.eventstore.transcoder import event_codec
from infra.postgres import connect, quote

CONTRACT = Path(__file__).parents[2] / "docs" / "contract"
GOLDEN = Path(__file__).parent / "golden"
Row = dict[str, Any]

CLASSES: dict[str, type[LedgerAggregate.Event]] = {topic_of(cls): cls for cls in event_classes()}
VERSIONS = [
    (topic, version)
    for topic, cls in CLASSES.items()
    for version in range(1, event_codec(cls).version + 1)
]
"""Topic and version of every layout ever written."""


def schema(topic: str, version: int) -> dict[str, Any]:
    """Raises FileNotFoundError where it was removed."""
    found: dict[str, Any] = json.loads((CONTRACT / schema_path(topic, version)).read_text("utf-8"))
    return found


def closed(part: Any) -> Any:
    """The schema, refusing what it does not describe."""
    if isinstance(part, list):
        return [closed(one) for one in part]
    if not isinstance(part, dict):
        return part
    inner = {name: closed(one) for name, one in part.items()}
    return {"additionalProperties": False, **inner} if "properties" in part else inner


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    """Formats are checked as well."""
    return Draft202012Validator(schema, validate_formats=True)


def golden_file(topic: str, version: int) -> Path:
    return GOLDEN / topic / f"v{version}.json"


def golden_rows(topic: str = "*", version: int | str = "*") -> list[Row]:
    """Rows of the log, in order; `state` is the stored body as text."""
    files = GOLDEN.glob(f"{topic}/v{version}.json")
    rows = [row for file in files for row in json.loads(file.read_text("utf-8"))]
    return sorted(rows, key=lambda row: row["position"])


def read_row(row: Row) -> feed.Recorded:
    """As the store feed reads it."""
    asked = (column.strip().partition("::") for column in feed._COLUMNS.split(","))
    return feed.recorded(
        [row[name] if kind else _typed(name, row[name]) for name, _, kind in asked]
    )


def _typed(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name == "state":
        return value.encode()
    if name.endswith("_at"):
        return datetime.fromisoformat(value)
    if name.endswith("_id") or name == "partition_key":
        return UUID(value)
    return value


def fill_log(url: str, schema: str, rows: list[Row]) -> None:
    """Put the rows into an empty log, as if they had been recorded there."""
    columns = list(rows[0])
    connection = connect(url, autocommit=True)
    with connection.cursor() as cursor:
        for row in rows:
            cursor.execute(
                f"INSERT INTO {quote(schema)}.events ({', '.join(columns)})"
                f" VALUES ({', '.join(['%s'] * len(columns))})",
                [row[name].encode() if name == "state" else row[name] for name in columns],
            )
        cursor.execute(
            f"UPDATE {quote(schema)}.head SET position = %s, recorded_at = %s",
            [rows[-1]["position"], rows[-1]["recorded_at"]],
        )
    connection.close()


def fill_vault(url: str, schema: str) -> None:
    """Put in the keys that the personal texts of the golden rows were sealed with."""
    keys = json.loads((GOLDEN / "keys.json").read_text())
    connection = connect(url, autocommit=True)
    with connection.cursor() as cursor:
        for subject, wrapped in keys.items():
            cursor.execute(
                f"INSERT INTO {quote(schema)}.keys (subject, wrapped) VALUES (%s, %s)",
                [subject, bytes.fromhex(wrapped)],
            )
    connection.close()
