"""Which campaign earned what: touches, credits of won deals, and the campaigns themselves."""

from projections.attribution.campaigns import FILTERS, SORTS, CampaignRow, campaign, campaigns
from projections.attribution.design import (
    BEST,
    Outcome,
    Period,
    PeriodEffect,
    Ranked,
    Trait,
    effect_by_period,
    ranking,
)
from projections.attribution.fits import Fit, Fits
from projections.attribution.models import DATA_DRIVEN, RULES, Model
from projections.attribution.performance import (
    Aims,
    CampaignPerformance,
    PlannedYear,
    annual_plan,
    performance,
)
from projections.attribution.reach import Invited, Reach, Week, invitations, reach
from projections.attribution.removal import WhatIf, what_if
from projections.attribution.results import (
    Asked,
    Attribution,
    CampaignCredit,
    DealCredits,
    Group,
    GroupCredit,
    TouchCredit,
    attribution,
    attributions,
    campaign_profiles,
    deal_credits,
)
from projections.attribution.views import AttributionProjection

__all__ = [
    "BEST",
    "DATA_DRIVEN",
    "FILTERS",
    "RULES",
    "SORTS",
    "Aims",
    "Asked",
    "Attribution",
    "AttributionProjection",
    "CampaignCredit",
    "CampaignPerformance",
    "CampaignRow",
    "DealCredits",
    "Fit",
    "Fits",
    "Group",
    "GroupCredit",
    "Invited",
    "Model",
    "Outcome",
    "Period",
    "PeriodEffect",
    "PlannedYear",
    "Ranked",
    "Reach",
    "TouchCredit",
    "Trait",
    "Week",
    "WhatIf",
    "annual_plan",
    "attribution",
    "attributions",
    "campaign",
    "campaign_profiles",
    "campaigns",
    "deal_credits",
    "effect_by_period",
    "invitations",
    "performance",
    "ranking",
    "reach",
    "what_if",
]
