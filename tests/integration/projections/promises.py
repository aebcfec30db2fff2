"""Whether the views of `bi` keep what `projections.star` promises of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from projections.star import KEYS, NULLABLE, REFERENCES


def broken(run: Callable[[str], Any]) -> list[str]:
    """The keys and references that do not hold, with a row that shows it. `run` gives the rows of a
    statement, which finds the views under their names."""
    found: list[str] = []
    for view, key in KEYS.items():
        listed = ", ".join(key)
        rows = run(
            f"SELECT to_jsonb(k)::text FROM (SELECT {listed} FROM {view} GROUP BY {listed}"
            " HAVING count(*) > 1 LIMIT 1) AS k"
        )
        found += [f"{view} has {row} more than once" for (row,) in rows]
        for column in key:
            if (view, column) not in NULLABLE and run(
                f"SELECT FROM {view} WHERE {column} IS NULL LIMIT 1"
            ):
                found.append(f"{view}.{column} is null")
    for (view, column), (other, target) in REFERENCES.items():
        rows = run(
            f"SELECT {column}::text FROM {view} WHERE {column} IS NOT NULL AND NOT EXISTS"
            f" (SELECT FROM {other} WHERE {other}.{target} = {view}.{column}) LIMIT 1"
        )
        found += [f"{view}.{column} {row} is not in {other}" for (row,) in rows]
    return found
