"""How far the read models are, as reports see it."""

from __future__ import annotations

from projections.projection import View

FRESHNESS = View(
    "freshness",
    "How far each read model is: what the views on it reflect.",
    {
        "read_model": "Name of the read model.",
        "id": "Its id: name, version of its tables, and the definition that they were filled by"
        " where that is not the built-in one.",
        "position": "Everything up to this position of the log is in its tables.",
        "moved_at": "When the position was last moved on: with every event in the log, whatever"
        " it is about.",
        "parked": "Number of customers, deals and campaigns of which an event could not be"
        " applied: their rows stand still.",
    },
    """SELECT split_part(projection, '/', 1), projection, min(position), max(moved_at),
        (SELECT count(DISTINCT key) FROM parked WHERE parked.projection = position.projection)
        FROM position GROUP BY projection""",
)
