"""Who is in which team: all from the beginning, and one who moves."""

from __future__ import annotations

from typing import Final

from domain.member import member_id
from workers.demo.names import TEAMS
from workers.demo.script import Script

HEAD: Final = "head of sales"
_BEGIN: Final = 0.02
_MOVER: Final = 3
_MOVES: Final = 430.5


def stage_teams(script: Script, owners: int) -> None:
    """Of the owners 1 to `owners`."""
    for n in range(1, owners + 1):
        _assign(script, _BEGIN, n, TEAMS[n % len(TEAMS)])
    _assign(
        script, _MOVES, _MOVER, TEAMS[(_MOVER + 1) % len(TEAMS)], "a colleague there has retired"
    )


def _assign(script: Script, when: float, n: int, team: str, reason: str | None = None) -> None:
    owner = script.person(f"rep {n}")
    script.add(
        when, script.person(HEAD), "assign_team", member_id(owner), reason=reason, owner=owner,
        team=team,
    )  # fmt: skip
