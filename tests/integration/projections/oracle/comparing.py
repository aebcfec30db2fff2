"""Answers of the read models beside those of the refold, counted by the kind of question."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from projections.reading import Moment
from tests.integration.projections.conftest import Models
from tests.integration.projections.story import Story


@dataclass
class Comparer:
    """Asks about one log. `questions` counts the answers compared, `told` by kind of question those
    that had something to tell."""

    models: Models
    story: Story
    questions: int = 0
    told: Counter[str] = field(default_factory=Counter)

    def same(self, what: str, moment: Moment, found: Any, expected: Any) -> None:
        self.questions += 1
        assert found == expected, f"{what} at {moment}: {found} instead of {expected}"

    def near(
        self, what: str, moment: Moment, found: Decimal, expected: Decimal, slack: float = 0
    ) -> None:
        """Of figures that are computed with floats and rounded: within one of the last digit, or
        a thousand-millionth, or `slack`."""
        self.questions += 1
        last = Decimal(1).scaleb(int(found.as_tuple().exponent))
        allowed = max(last, abs(expected) / 10**9, Decimal(slack))
        assert abs(found - expected) <= allowed, f"{what} at {moment}: {found}, not {expected}"

    def close(self, what: str, moment: Moment, found: float | None, expected: float | None) -> None:
        """Of floats: within a hundred-millionth of the figure, or of 1 where it is smaller."""
        self.questions += 1
        if found is None or expected is None:
            assert found is expected, f"{what} at {moment}: {found} instead of {expected}"
            return
        allowed = 1e-8 * max(1.0, abs(expected))
        assert abs(found - expected) <= allowed, f"{what} at {moment}: {found}, not {expected}"

    def tell(self, kind: str, something: object) -> None:
        """Count an answer of this kind, if there is something in it."""
        self.told[kind] += bool(something)
