"""Definitions: which are refused, and that an id stands for a content."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from domain.definitions import (
    BUILT_IN,
    AttributionDefinition,
    ForecastDefinition,
    InvalidDefinition,
    LevelDefinition,
    Part,
    PathDefinition,
    StrategyDefinition,
)
from domain.values import Level


def test_what_is_built_in_is_called_by_its_version() -> None:
    assert {part.id for part in BUILT_IN.parts().values()} == {"1"}
    assert LevelDefinition(window_days=180).id == "1"


def test_another_content_is_another_id() -> None:
    changed = LevelDefinition(window_days=90)
    assert changed.id.startswith("1-")
    assert len({changed.id, LevelDefinition(window_days=91).id, "1"}) == 3
    assert LevelDefinition(2).id.startswith("2-")


def test_the_same_content_is_the_same_id_however_it_is_written() -> None:
    ids = {AttributionDefinition(half_life_days=Decimal(text)).id for text in ("8", "8.0", "8E0")}
    assert len(ids) == 1
    assert AttributionDefinition(half_life_days=Decimal("7.00")).id == "1"


def test_every_level_has_a_strategy() -> None:
    assert set(StrategyDefinition().by_level) == set(Level)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: AttributionDefinition(look_back_days=0), "look_back_days"),
        (lambda: AttributionDefinition(half_life_days=Decimal(0)), "half_life_days"),
        (lambda: AttributionDefinition(u=(Decimal(50), Decimal(50))), "u"),
        (lambda: AttributionDefinition(w=(Decimal(25),) * 3 + (Decimal(26),)), "w"),
        (lambda: AttributionDefinition(full_path=(Decimal(101), Decimal(-1)) * 2), "full_path"),
        (lambda: LevelDefinition(0), "version"),
        (lambda: LevelDefinition(new_days=359), "new_days"),
        (lambda: LevelDefinition(growth=Decimal(0)), "growth"),
        (lambda: LevelDefinition(decline=Decimal("1.01")), "decline"),
        (lambda: LevelDefinition(overdue_days=36_501), "overdue_days"),
        (lambda: StrategyDefinition(by_level={"new": "x"}), "by_level"),
        (lambda: StrategyDefinition(by_level=dict.fromkeys(Level, " ")), "by_level.new"),
        (lambda: ForecastDefinition(best_case_chance=Decimal("0.9")), "best_case_chance"),
        (lambda: ForecastDefinition(prior_weight=Decimal(0)), "prior_weight"),
        (lambda: ForecastDefinition(half_life_days=Decimal(0)), "half_life_days"),
        (lambda: ForecastDefinition(naive_months=0), "naive_months"),
        (lambda: PathDefinition(-1), "version"),
    ],
)
def test_a_wrong_value_is_refused_by_name(make: Callable[[], Part], field: str) -> None:
    with pytest.raises(InvalidDefinition) as refused:
        make()
    assert str(refused.value).startswith(f"{field} ")
