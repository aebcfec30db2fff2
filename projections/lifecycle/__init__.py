"""Where customers stand in their lifecycle, what they are worth, and what they may need next."""

from projections.lifecycle.classifications import VALUES, Classification
from projections.lifecycle.cohorts import Cohort, CohortMonth, Cohorts, CohortsBy, cohorts
from projections.lifecycle.durations import Duration, durations
from projections.lifecycle.moves import (
    ABSENT,
    DeclineCause,
    Departures,
    FlowLink,
    FlowNode,
    Flows,
    Loss,
    LossCause,
    Move,
    Transitions,
    decline_causes,
    flows,
    loss_causes,
    losses,
    transitions,
)
from projections.lifecycle.standings import StandingFold
from projections.lifecycle.views import LifecycleProjection
from projections.lifecycle.whereabouts import (
    Distribution,
    Standing,
    ValueCount,
    distribution,
    standing,
)

__all__ = [
    "ABSENT",
    "VALUES",
    "Classification",
    "Cohort",
    "CohortMonth",
    "Cohorts",
    "CohortsBy",
    "DeclineCause",
    "Departures",
    "Distribution",
    "Duration",
    "FlowLink",
    "FlowNode",
    "Flows",
    "LifecycleProjection",
    "Loss",
    "LossCause",
    "Move",
    "Standing",
    "StandingFold",
    "Transitions",
    "ValueCount",
    "cohorts",
    "decline_causes",
    "distribution",
    "durations",
    "flows",
    "loss_causes",
    "losses",
    "standing",
    "transitions",
]
