"""The four classifications of customers (R28, R29, R64, R65) and their values, in order."""

from __future__ import annotations

from enum import StrEnum


class Classification(StrEnum):
    TYPE = "type"
    PATH = "path"
    IDENTIFICATION = "identification"
    LEVEL = "level"


VALUES: dict[Classification, tuple[str, ...]] = {
    Classification.TYPE: ("prospect", "responder", "relationship", "lost"),
    Classification.PATH: ("prospect", "opportunity", "order", "repeat"),
    Classification.IDENTIFICATION: (
        "to_be_identified",
        "prospect",
        "sales_opportunity",
        "order",
        "user",
    ),
    Classification.LEVEL: (
        "none",
        "new",
        "growing",
        "stable",
        "declining",
        "problem",
        "no-value",
    ),
}
