"""The campaigns: planned with what they are to bring, approved or not, run, visited and paid."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final
from uuid import UUID

from domain.values import CampaignPlan
from workers.demo.names import CAMPAIGNS, PRODUCTS, REGIONS
from workers.demo.script import DAYS, Script

MARKETING: Final = "marketing"
HEAD: Final = "head of marketing"
_REJECTED, _RESUBMITTED, _CANCELLED, _ABANDONED = 6, 3, 9, 12
"""Which of them go another way than the rest."""
_UNPLANNED: Final = (4, 9)
"""Which of them are to bring nothing in particular."""
_ATTENDEES: Final = {"visit": (20, 60), "conference": (90, 380), "web": (120, 500)}
"""About how many are to come, where one can."""


@dataclass(frozen=True, slots=True)
class Campaign:
    """One that ran, for those who respond to it."""

    id: UUID
    channel: str
    region: str | None
    product: str
    starts: float
    ends: float
    draw: float
    """How many respond, of those who would to an average one."""


def stage_campaigns(script: Script) -> list[Campaign]:
    """All of them in the script; returns those that ran."""
    ran = []
    for n, (name, channel) in enumerate(CAMPAIGNS):
        campaign = _stage(script, n, name, channel)
        if campaign is not None:
            ran.append(campaign)
    return ran


def _stage(script: Script, n: int, name: str, channel: str) -> Campaign | None:
    random = script.random("campaign", n)
    marketing, head = script.person(MARKETING), script.person(HEAD)
    id_ = f"CAMPAIGN-{n + 1:02}"
    target = script.stream("campaign", id_)
    starts = 40 + n * (DAYS - 60) / (len(CAMPAIGNS) - 1) + random.uniform(0, 8)
    ends = starts + random.uniform(20, 45)
    planned = starts - random.uniform(28, 38)
    budget = random.uniform(30, 160)
    region = random.choice(REGIONS) if n % 3 else None
    product = PRODUCTS[n % len(PRODUCTS)]
    plan = None if n in _UNPLANNED else _plan(script, random, channel, everywhere=region is None)
    script.add(
        planned, marketing, "plan_campaign", target,
        name=f"{name} {script.day(starts).year}",
        channel=channel,
        region=region,
        starts_on=script.day(starts),
        ends_on=script.day(ends),
        budget=script.money(budget),
        product=product,
        plan=plan,
        external_id=script.external(id_),
    )  # fmt: skip
    script.add(planned + 2, marketing, "submit_campaign", target)
    if n == _REJECTED:
        script.add(planned + 6, head, "reject_campaign", target, reason="no target list")
        return None
    if n == _RESUBMITTED:
        script.add(planned + 5, head, "reject_campaign", target, reason="target list too wide")
        script.add(planned + 9, marketing, "submit_campaign", target)
    script.add(planned + 12, head, "approve_campaign", target, by=head)
    if n == _CANCELLED:
        script.add(starts - 3, marketing, "cancel_campaign", target, reason="venue closed")
        return None
    script.add(starts, marketing, "start_campaign", target)
    parts, draw = random.randint(3, 5), random.uniform(0.6, 1.4)
    spent = budget * random.uniform(0.8, 1.15)
    if n == _ABANDONED:
        ends = starts + 12
        script.add(ends, marketing, "cancel_campaign", target, reason="hardly any response")
        parts, spent, draw = 2, spent / 2, 0.1
    for part in range(parts):
        booked = starts + (ends - starts) * (part + 0.5) / parts
        script.add(
            booked, marketing, "book_cost", target,
            amount=script.money(spent / parts),
            reference=f"INV-{n + 1:02}-{part + 1}",
        )  # fmt: skip
    if channel in _ATTENDEES:
        meant = random.uniform(*_ATTENDEES[channel])
        if plan is not None and plan.attendees is not None:
            meant = plan.attendees
        came = round(meant * (0.1 if n == _ABANDONED else random.uniform(0.55, 1.25)))
        script.add(ends + 2, marketing, "record_attendance", target, attendees=came)
    if n != _ABANDONED:
        script.add(ends + 4, marketing, "complete_campaign", target)
    return Campaign(target, channel, region, product, starts, ends, draw)


def _plan(script: Script, random: Random, channel: str, *, everywhere: bool) -> CampaignPlan:
    """Somewhat hopeful."""
    contracts = random.randint(1, 2)
    attendees = random.uniform(*_ATTENDEES[channel]) if channel in _ATTENDEES else None
    return CampaignPlan(
        attendees=None if attendees is None else round(attendees / 10) * 10,
        responses=random.randint(20, 40) if everywhere else random.randint(8, 16),
        deals=contracts + random.randint(1, 4),
        contracts=contracts,
        revenue=script.money(contracts * random.uniform(70, 150)),
    )
