"""Which campaign earned what: touches, credits of won deals, and the campaigns themselves."""

from projections.attribution.campaigns import FILTERS, SORTS, CampaignRow, campaign, campaigns
from projections.attribution.credits import Model
from projections.attribution.results import (
    Attribution,
    CampaignCredit,
    CampaignPerformance,
    PlannedYear,
    annual_plan,
    attribution,
    performance,
)
from projections.attribution.views import AttributionProjection

__all__ = [
    "FILTERS",
    "SORTS",
    "Attribution",
    "AttributionProjection",
    "CampaignCredit",
    "CampaignPerformance",
    "CampaignRow",
    "Model",
    "PlannedYear",
    "annual_plan",
    "attribution",
    "campaign",
    "campaigns",
    "performance",
]
