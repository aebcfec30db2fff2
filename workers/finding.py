"""What ``crm doctor`` finds, one thing at a time."""

from __future__ import annotations

from dataclasses import dataclass

LONG_SECONDS = 60.0
"""From then on it is a problem that an event still waits to be published or applied."""


@dataclass(frozen=True, slots=True)
class Finding:
    """``good`` False is a problem; the text then says what to do about it."""

    good: bool
    subject: str
    text: str


def lasting(seconds: float) -> str:
    """A time for people: ``45 s``, ``12 min``, ``3 h`` or ``4 days``."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:,.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
