"""The campaigns: planned, approved or not, run and paid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from workers.demo.names import CAMPAIGNS, REGIONS
from workers.demo.script import DAYS, Script

MARKETING: Final = "marketing"
HEAD: Final = "head of marketing"
_REJECTED, _RESUBMITTED, _CANCELLED, _ABANDONED = 6, 3, 9, 12
"""Which of them go another way than the rest."""


@dataclass(frozen=True, slots=True)
class Campaign:
    """One that ran, for those who respond to it."""

    id: UUID
    channel: str
    region: str | None
    starts: float
    ends: float


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
    script.add(
        planned, marketing, "plan_campaign", target,
        name=f"{name} {script.day(starts).year}",
        channel=channel,
        region=region,
        starts_on=script.day(starts),
        ends_on=script.day(ends),
        budget=script.money(budget),
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
    parts = random.randint(3, 5)
    spent = budget * random.uniform(0.8, 1.15)
    if n == _ABANDONED:
        ends = starts + 12
        script.add(ends, marketing, "cancel_campaign", target, reason="hardly any response")
        parts, spent = 2, spent / 2
    for part in range(parts):
        booked = starts + (ends - starts) * (part + 0.5) / parts
        script.add(
            booked, marketing, "book_cost", target,
            amount=script.money(spent / parts),
            reference=f"INV-{n + 1:02}-{part + 1}",
        )  # fmt: skip
    if n != _ABANDONED:
        script.add(ends + 4, marketing, "complete_campaign", target)
    return Campaign(target, channel, region, starts, ends)
