"""Writes the sources for dbt, as the code has the views of `bi`: make dbt.

For dbt 1.8 or later; keys of several columns are tested by the package dbt_utils.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from projections.catalogue import PROJECTIONS
from projections.projection import View
from projections.star import KEYS, NULLABLE, REFERENCES

PATH: Final = Path(__file__).with_name("sources.yml")
SOURCE: Final = "crm_ledger"
_HEAD: Final = "# Written by make dbt. The tests hold it to the views that there are.\n"


def text() -> str:
    """The whole file."""
    views = {view.name: view for one in PROJECTIONS.values() for view in one.views}
    source = {
        "name": SOURCE,
        "description": "Read models of the CRM ledger, as they are now. Persons appear under"
        " pseudonyms. Read models are carried on one apart from the other: a reference may be"
        " ahead of what it refers to for the moment between two.",
        "schema": "bi",
        "tables": [*map(_table, (views[name] for name in sorted(views))), *_freshness()],
    }
    written: str = yaml.safe_dump(
        {"version": 2, "sources": [source]}, sort_keys=False, allow_unicode=True, width=96
    )
    return _HEAD + written


def _table(view: View) -> dict[str, Any]:
    table: dict[str, Any] = {"name": view.name, "description": view.comment}
    key = KEYS[view.name]
    if len(key) > 1:
        unique = {"combination_of_columns": list(key)}
        table["data_tests"] = [{"dbt_utils.unique_combination_of_columns": unique}]
    table["columns"] = [
        _column(view.name, name, comment, key) for name, comment in view.columns.items()
    ]
    return table


def _column(view: str, name: str, comment: str, key: tuple[str, ...]) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "description": comment}
    tests: list[Any] = []
    if key == (name,):
        tests.append("unique")
    if name in key and (view, name) not in NULLABLE:
        tests.append("not_null")
    if (view, name) in REFERENCES:
        to, field = REFERENCES[view, name]
        tests.append({"relationships": {"to": f"source('{SOURCE}', '{to}')", "field": field}})
    if tests:
        column["data_tests"] = tests
    return column


def _freshness() -> Iterator[dict[str, Any]]:
    """Each read model by itself: the newest of all would hide one that stands still."""
    for name in PROJECTIONS:
        yield {
            "name": f"freshness_{name}",
            "identifier": "freshness",
            "description": f"How far the read model {name} is.",
            "loaded_at_field": "moved_at",
            "freshness": {
                "warn_after": {"count": 1, "period": "day"},
                "error_after": {"count": 3, "period": "day"},
                "filter": f"read_model = '{name}'",
            },
        }


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
