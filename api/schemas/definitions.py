"""Shapes of the definitions as they are answered. Numbers that need not be whole are texts."""

from typing import Annotated

from pydantic import BaseModel, Field

Shares = Annotated[list[str], Field(description="In per cent; they sum to 100.")]


class Part(BaseModel):
    id: Annotated[
        str,
        Field(description="The version; with a hash of the content where it is not built in."),
    ]
    version: int


class Attribution(Part):
    """Which touches count, and how the rule models share an amount among them."""

    look_back_days: int
    half_life_days: str
    u: Annotated[Shares, Field(description="First touch, middle, last touch.")]
    w: Annotated[Shares, Field(description="First touch, lead, opportunity, middle.")]
    full_path: Annotated[
        Shares, Field(description="First touch, lead, opportunity, close, middle.")
    ]
    size_limits: Annotated[
        list[str], Field(description="Attendees from which a campaign is medium, and large.")
    ]


class Levels(Part):
    """Which level a customer in a relationship has."""

    window_days: int
    growth: str
    decline: str
    new_days: int
    overdue_days: int
    value_days: int


class Strategies(Part):
    """How a customer of each level is served."""

    by_level: dict[str, str]


class Forecast(Part):
    """How open deals are told apart, and how far history counts against the definition."""

    commit_chance: str
    best_case_chance: str
    prior_weight: str
    half_life_days: str
    naive_months: int


class DefinitionsAnswer(BaseModel):
    attribution: Attribution
    levels: Levels
    strategies: Strategies
    forecast: Forecast
    path: Part
