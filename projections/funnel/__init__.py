"""Deals, their stage visits and the pipelines: what will the funnel bring, and when."""

from projections.funnel.deals import FILTERS, SORTS, DealRow, VisitRow, deal, deals, visits
from projections.funnel.outlook import (
    CurrencyFunnel,
    Forecast,
    ForecastMonth,
    Funnel,
    FunnelStage,
    MonthsBy,
    Timing,
    WinRate,
    forecast,
    funnel,
    win_rates,
)
from projections.funnel.pipelines import (
    PIPELINE_SORTS,
    PipelineRow,
    StageRow,
    pipeline,
    pipelines,
)
from projections.funnel.views import FunnelProjection

__all__ = [
    "FILTERS",
    "PIPELINE_SORTS",
    "SORTS",
    "CurrencyFunnel",
    "DealRow",
    "Forecast",
    "ForecastMonth",
    "Funnel",
    "FunnelProjection",
    "FunnelStage",
    "MonthsBy",
    "PipelineRow",
    "StageRow",
    "Timing",
    "VisitRow",
    "WinRate",
    "deal",
    "deals",
    "forecast",
    "funnel",
    "pipeline",
    "pipelines",
    "visits",
    "win_rates",
]
