"""Deals, their stage visits and the pipelines: what will the funnel bring, and when."""

from projections.funnel.backtest import (
    Backtest,
    MethodScore,
    MonthEnd,
    PastForecast,
    Score,
    backtest,
    month_ends,
)
from projections.funnel.cadence import OVERDUE_SORTS, Overdue, overdue
from projections.funnel.deals import FILTERS, SORTS, DealRow, deal, deals
from projections.funnel.fits import Fits
from projections.funnel.forecast import (
    Forecast,
    ForecastMonth,
    Interval,
    Outlook,
    Sums,
    forecast,
)
from projections.funnel.members import MEMBER_SORTS, MemberRow, members
from projections.funnel.months import MonthsBy, Timing
from projections.funnel.open_deals import OF_CUSTOMERS, Grouping
from projections.funnel.outlook import (
    CurrencyFunnel,
    Funnel,
    FunnelStage,
    WinRate,
    funnel,
    win_rates,
)
from projections.funnel.pipelines import (
    PIPELINE_SORTS,
    PipelineRow,
    StageRow,
    pipeline,
    pipelines,
    revision_of,
)
from projections.funnel.rates import RATE_SORTS, Conversion, Rate, conversion, rates
from projections.funnel.spread import LEVELS
from projections.funnel.stays import VisitRow, visits
from projections.funnel.views import FunnelProjection
from projections.funnel.waterfall import Change, Waterfall, waterfall

__all__ = [
    "FILTERS",
    "LEVELS",
    "MEMBER_SORTS",
    "OF_CUSTOMERS",
    "OVERDUE_SORTS",
    "PIPELINE_SORTS",
    "RATE_SORTS",
    "SORTS",
    "Backtest",
    "Change",
    "Conversion",
    "CurrencyFunnel",
    "DealRow",
    "Fits",
    "Forecast",
    "ForecastMonth",
    "Funnel",
    "FunnelProjection",
    "FunnelStage",
    "Grouping",
    "Interval",
    "MemberRow",
    "MethodScore",
    "MonthEnd",
    "MonthsBy",
    "Outlook",
    "Overdue",
    "PastForecast",
    "PipelineRow",
    "Rate",
    "Score",
    "StageRow",
    "Sums",
    "Timing",
    "VisitRow",
    "Waterfall",
    "WinRate",
    "backtest",
    "conversion",
    "deal",
    "deals",
    "forecast",
    "funnel",
    "members",
    "month_ends",
    "overdue",
    "pipeline",
    "pipelines",
    "rates",
    "revision_of",
    "visits",
    "waterfall",
    "win_rates",
]
