"""Definitions: the thresholds, weights and texts that analyses and policies go by, versioned.

Each part has an `id` that stands beside every figure made by it: the version, where it is the
built-in of that version, else the version and a hash of its content. Two parts with one id say the
same. Constructors raise `InvalidDefinition`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final, TypeAlias

from domain.values import Level

DAYS_LIMIT: Final = 36_500

Shares: TypeAlias = tuple[Decimal, ...]
"""In per cent; they sum to 100."""


class InvalidDefinition(ValueError):
    """The message begins with the name of the field."""


@dataclass(frozen=True)
class Part:
    """Of the definitions. `id` names its content; `values` is it, as plain data."""

    version: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.version < 2**31:
            raise InvalidDefinition("version is at least 1")

    @property
    def id(self) -> str:
        version = str(self.version)
        if self == type(self)():
            return version
        canonical = json.dumps(self.values(), sort_keys=True, separators=(",", ":"))
        return f"{version}-{sha256(canonical.encode()).hexdigest()[:8]}"

    def values(self) -> dict[str, Any]:
        """By field: numbers that need not be whole as plain decimal texts."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)}


def _days(days: int, name: str) -> None:
    if not 1 <= days <= DAYS_LIMIT:
        raise InvalidDefinition(f"{name} is between 1 and {DAYS_LIMIT:,}")


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return value


@dataclass(frozen=True)
class AttributionDefinition(Part):
    """R77: which touches count, and how the rule models share an amount among them."""

    look_back_days: int = 90
    """A touch counts that is less than so long before the close."""
    half_life_days: Decimal = Decimal(7)
    """Time decay: a touch so much older has half the weight."""
    u: Shares = (Decimal(40), Decimal(20), Decimal(40))
    """First touch, those in the middle, last touch."""
    w: Shares = (Decimal(30), Decimal(30), Decimal(30), Decimal(10))
    """First touch, lead, opportunity, those in the middle."""
    full_path: Shares = (
        Decimal("22.5"),
        Decimal("22.5"),
        Decimal("22.5"),
        Decimal("22.5"),
        Decimal(10),
    )
    """First touch, lead, opportunity, close, those in the middle."""
    size_limits: tuple[Decimal, ...] = (Decimal(50), Decimal(200))
    """R38: attendees from which a campaign is medium, and from which it is large."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _days(self.look_back_days, "look_back_days")
        if len(self.size_limits) != 2 or not 0 < self.size_limits[0] < self.size_limits[1]:
            raise InvalidDefinition("size_limits is two numbers above 0 that rise")
        if not 0 < self.half_life_days <= DAYS_LIMIT:
            raise InvalidDefinition(f"half_life_days is above 0, up to {DAYS_LIMIT:,}")
        for name, count in (("u", 3), ("w", 4), ("full_path", 5)):
            shares: Shares = getattr(self, name)
            if len(shares) != count or min(shares) < 0 or sum(shares) != 100:
                raise InvalidDefinition(f"{name} is {count} shares that sum to 100")


@dataclass(frozen=True)
class LevelDefinition(Part):
    """R64: which level a customer in a relationship has.

    The first of these that holds: problem, no-value, new, growing or declining; else stable.
    """

    window_days: int = 180
    """Revenue of the last so many days is compared with that of as many days before them."""
    growth: Decimal = Decimal("0.2")
    """Growing: the revenue rose by this part of what it was, or more."""
    decline: Decimal = Decimal("0.2")
    """Declining: it fell by this part, or more."""
    new_days: int = 360
    """New: the relationship began less than so long ago. Two windows or more: with less history
    there is nothing to compare."""
    overdue_days: int = 30
    """Problem: a payment has been overdue for so long, or longer."""
    value_days: int = 365
    """No-value: purchases of the last so many days cost us what they brought in, or more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("window_days", "new_days", "overdue_days", "value_days"):
            _days(getattr(self, name), name)
        if not 0 < self.growth <= 1000:
            raise InvalidDefinition("growth is above 0, up to 1000 (1 is twice the revenue)")
        if not 0 < self.decline <= 1:
            raise InvalidDefinition("decline is above 0, up to 1 (1 is no revenue any more)")
        if self.new_days < 2 * self.window_days:
            raise InvalidDefinition("new_days is at least twice window_days")


def _built_in_strategies() -> Mapping[str, str]:
    return {
        Level.NEW: "Welcome: introduce the team, see the first delivery through, ask how it went.",
        Level.GROWING: "Invest: joint planning, offers for neighbouring needs, executive contact.",
        Level.STABLE: "Keep: regular visits by the same people, quality first, yearly review.",
        Level.DECLINING: "Find out why: a visit by a senior, then an offer that answers the cause.",
        Level.PROBLEM: "Collect: agree on payment, deliver only against it, one person in charge.",
        Level.NO_VALUE: "Reduce cost: process service, list prices, review before further effort.",
    }


@dataclass(frozen=True)
class StrategyDefinition(Part):
    """R68: how a customer of each level is served."""

    by_level: Mapping[str, str] = field(default_factory=_built_in_strategies, hash=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        levels = [level.value for level in Level]
        if sorted(self.by_level) != sorted(levels):
            raise InvalidDefinition(f"by_level has a text for each of {', '.join(levels)}")
        for level, text in self.by_level.items():
            if not 0 < len(text.strip()) <= 1000:
                raise InvalidDefinition(f"by_level.{level} has 1 to 1,000 characters")
        ordered = {level: self.by_level[level] for level in levels}
        object.__setattr__(self, "by_level", ordered)


@dataclass(frozen=True)
class ForecastDefinition(Part):
    """How open deals are told apart, and how far history counts against the definition."""

    commit_chance: Decimal = Decimal("0.8")
    """Open deals with this chance to win, or more, are committed."""
    best_case_chance: Decimal = Decimal("0.5")
    """Those with this chance or more, and less than that, are the best case."""
    prior_weight: Decimal = Decimal(2)
    """Learned chances and times: the pipeline's definition counts like so many deals seen."""
    half_life_days: Decimal = Decimal(90)
    """Learned, too: what a deal did so long ago counts half."""
    naive_months: int = 3
    """The naive baseline is the mean of the wins of so many months."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.best_case_chance <= self.commit_chance <= 1:
            raise InvalidDefinition("best_case_chance and commit_chance rise from 0 to 1")
        if not 0 < self.prior_weight <= 1_000_000:
            raise InvalidDefinition("prior_weight is above 0, up to 1,000,000")
        if not 1 <= self.half_life_days <= DAYS_LIMIT:
            raise InvalidDefinition(f"half_life_days is between 1 and {DAYS_LIMIT:,}")
        if not 1 <= self.naive_months <= 120:
            raise InvalidDefinition("naive_months is between 1 and 120")


@dataclass(frozen=True)
class PathDefinition(Part):
    """R28, R29: prospect, opportunity, order, repeat; never back. Nothing to set but a version."""


@dataclass(frozen=True)
class Definitions:
    """All that are in force."""

    attribution: AttributionDefinition = AttributionDefinition()
    levels: LevelDefinition = LevelDefinition()
    strategies: StrategyDefinition = StrategyDefinition()
    forecast: ForecastDefinition = ForecastDefinition()
    path: PathDefinition = PathDefinition()

    def parts(self) -> dict[str, Part]:
        return {each.name: getattr(self, each.name) for each in fields(self)}


BUILT_IN: Final = Definitions()
