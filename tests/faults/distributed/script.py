"""A made-up company at work: commands drawn from a seed, most of them sensible, some not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

CURRENCY = "CNY"
STAGES = ("prospect", "bid", "negotiation", "contract")
CHANNELS = ("fair", "mail", "web")
LEVELS = ("new", "growing", "stable", "declining", "problem", "no-value")


@dataclass(slots=True)
class Thing:
    """A customer, campaign or deal as the client knows it; `busy` while a command about it is
    under way or its outcome is not known."""

    kind: str
    id: str
    state: str = ""
    stage: int = 0
    customer: Thing | None = None
    busy: bool = False


@dataclass(slots=True)
class Command:
    """`adds`: if it is carried out, it adds an event; one that was done before need not."""

    key: str
    path: str
    body: dict[str, Any]
    adds: bool = False
    about: list[Thing] = field(default_factory=list)
    done: Callable[[dict[str, Any]], None] | None = None


class Script:
    """One client's commands: `draw` gives the next, `told` takes what became of one.

    Each command carries its key as its reason, so that its events can be told in the log.
    """

    def __init__(self, seed: str, name: str) -> None:
        """The same commands for the same seed; `name` begins their keys, which must be new."""
        self._random = Random(seed)
        self._name = name
        self._number = 0
        self._customers: list[Thing] = []
        self._campaigns: list[Thing] = []
        self._deals: list[Thing] = []

    def draw(self) -> Command:
        command = self._drawn()
        for thing in command.about:
            thing.busy = True
        return command

    @staticmethod
    def told(command: Command, answer: dict[str, Any] | None) -> None:
        """`answer` is None for a refusal."""
        for thing in command.about:
            thing.busy = False
        if answer is not None and command.done is not None:
            command.done(answer)

    def _drawn(self) -> Command:
        random = self._random
        customer = self._free(self._customers)
        campaign = self._free(self._campaigns)
        deal = self._free(self._deals)
        kind = random.random()
        if customer is None or len(self._customers) < 3 or kind < 0.06:
            return self._register()
        if campaign is None or kind < 0.08:
            return self._plan()
        if kind < 0.14:
            return self._campaign(campaign)
        if deal is None or kind < 0.24:
            return self._open(customer, campaign)
        if kind < 0.58:
            return self._deal(deal)
        if kind < 0.61:
            return self._nonsense(customer)
        return self._customer(customer, campaign)

    def _free(self, things: list[Thing]) -> Thing | None:
        """One that nothing is under way for; rather one of the later ones."""
        free = [thing for thing in things[-40:] if not thing.busy]
        return self._random.choice(free) if free else None

    def _command(
        self, path: str, *about: Thing, adds: bool = False, done: Any = None, **body: Any
    ) -> Command:
        self._number += 1
        key = f"{self._name}:{self._number}"
        return Command(key, path, {**body, "reason": key}, adds, list(about), done)

    def _unique(self, what: str) -> str:
        return f"{what} {self._name}:{self._number + 1}"

    def _money(self) -> dict[str, str]:
        value = self._random.randrange(1_00, 900_000_00)
        return {"value": f"{value // 100}.{value % 100:02}", "currency": CURRENCY}

    def _past(self) -> dict[str, str]:
        """Now and then: told late, for a time long ago."""
        if self._random.random() > 0.15:
            return {}
        at = datetime.now(UTC) - timedelta(days=self._random.randrange(1, 300))
        return {"occurred_at": at.isoformat()}

    def _register(self) -> Command:
        at = datetime.now(UTC) - timedelta(days=self._random.randrange(200, 500))
        random = self._random
        person = random.random() < 0.2

        def done(answer: dict[str, Any]) -> None:
            self._customers.append(Thing("customer", answer["id"]))

        more: dict[str, Any] = {}
        if random.random() < 0.3:
            more["external_id"] = {"source": "erp", "id": self._unique("c")}
        return self._command(
            "/v1/customers",
            adds=True,
            done=done,
            name=self._unique("Customer"),
            kind="person" if person else "company",
            region=random.choice(("north", "south", "east")),
            occurred_at=at.isoformat(),
            **more,
        )

    def _customer(self, customer: Thing, campaign: Thing) -> Command:
        random = self._random
        one = f"/v1/customers/{customer.id}"
        what = random.randrange(9)
        if what <= 1:
            return self._command(
                f"{one}/orders",
                customer,
                adds=True,
                order_id=self._unique("o"),
                amount=self._money(),
                **self._past(),
            )
        if what == 2:
            return self._command(
                f"{one}/responses",
                customer,
                adds=True,
                campaign_id=campaign.id,
                channel=random.choice(CHANNELS),
                kind="asked",
                **self._past(),
            )
        if what == 3:
            return self._command(
                f"{one}/contacts",
                customer,
                adds=True,
                name=self._unique("Contact"),
                email="someone@example.com",
            )
        if what == 4:
            return self._command(
                f"{one}/profile",
                customer,
                adds=True,
                attributes={"note": self._unique("n")},
                industry=random.choice(("steel", "food", "")),
            )
        if what == 5:
            return self._command(
                f"{one}/payments",
                customer,
                adds=True,
                kind="overdue",
                amount=self._money(),
                reference=self._unique("r"),
            )
        if what == 6:
            return self._command(
                f"{one}/churn-signals", customer, kind="complaint", severity="high", detail="late"
            )
        if what == 7:
            return self._command(f"{one}/lifecycle", customer, level=random.choice(LEVELS))
        if random.random() < 0.5:
            return self._command(f"{one}/churn", customer, cause="price")
        return self._command(f"{one}/win-back", customer)

    def _plan(self) -> Command:
        def done(answer: dict[str, Any]) -> None:
            self._campaigns.append(Thing("campaign", answer["id"], "planned"))

        today = _today()
        return self._command(
            "/v1/campaigns",
            adds=True,
            done=done,
            name=self._unique("Campaign"),
            channel=self._random.choice(CHANNELS),
            starts_on=(today - timedelta(days=30)).isoformat(),
            ends_on=(today + timedelta(days=60)).isoformat(),
            budget=self._money(),
        )

    def _campaign(self, campaign: Thing) -> Command:
        one = f"/v1/campaigns/{campaign.id}"
        following = {"planned": "submit", "submit": "approve", "approve": "start"}
        step = following.get(campaign.state)
        if step is None or self._random.random() < 0.1:
            return self._command(
                f"{one}/costs", campaign, amount=self._money(), reference=self._unique("b")
            )

        def done(_: dict[str, Any]) -> None:
            campaign.state = step

        return self._command(f"{one}/{step}", campaign, done=done)

    def _open(self, customer: Thing, campaign: Thing) -> Command:
        def done(answer: dict[str, Any]) -> None:
            self._deals.append(Thing("deal", answer["id"], "open", customer=customer))

        more: dict[str, Any] = {}
        if self._random.random() < 0.5:
            more["campaign_id"] = campaign.id
        return self._command(
            "/v1/opportunities",
            customer,
            adds=True,
            done=done,
            customer_id=customer.id,
            name=self._unique("Deal"),
            amount=self._money(),
            owner=f"rep-{self._random.randrange(5)}",
            **more,
        )

    def _deal(self, deal: Thing) -> Command:
        random = self._random
        one = f"/v1/opportunities/{deal.id}"

        def becomes(state: str) -> Callable[[dict[str, Any]], None]:
            def done(_: dict[str, Any]) -> None:
                deal.state = state

            return done

        if deal.state in ("won", "lost"):
            return self._command(
                f"{one}/review", deal, done=becomes("reviewed"), summary="as it went"
            )
        if deal.state == "reviewed":
            return self._command(f"{one}/close", deal, done=becomes("closed"))
        if deal.state == "closed":
            return self._command(f"{one}/archive", deal, done=becomes("archived"))
        if deal.state == "suspended":
            return self._command(f"{one}/resume", deal, done=becomes("open"))
        what = random.randrange(12)
        if what <= 3:
            stage = random.randrange(len(STAGES))
            return self._command(f"{one}/stage", deal, stage=STAGES[stage])
        if what <= 5:
            return self._command(f"{one}/amount", deal, amount=self._money())
        if what == 6:
            day = _today() + timedelta(days=random.randrange(1, 200))
            return self._command(f"{one}/expected-close", deal, expected_close=day.isoformat())
        if what == 7:
            return self._command(f"{one}/transfer", deal, owner=f"rep-{random.randrange(50)}")
        if what == 8:
            return self._command(f"{one}/suspend", deal, done=becomes("suspended"))
        if what == 9:
            return self._command(
                f"{one}/activities", deal, adds=True, kind="call", result=self._unique("a")
            )
        if what == 10:
            assert deal.customer is not None
            return self._command(
                f"{one}/contract",
                deal,
                done=becomes("won"),
                amount=self._money(),
                signed_on=_today().isoformat(),
            )
        return self._command(
            f"{one}/loss", deal, done=becomes("lost"), cause="price", competitor="unknown"
        )

    def _nonsense(self, customer: Thing) -> Command:
        """What is refused, each for another reason."""
        random = self._random
        what = random.randrange(4)
        if what == 0:
            unknown = UUID(int=random.getrandbits(128), version=4)
            return self._command(f"/v1/opportunities/{unknown}/suspend")
        if what == 1:
            return self._command(
                f"/v1/customers/{customer.id}/orders",
                order_id="o",
                amount={"value": "-1", "currency": CURRENCY},
            )
        if what == 2:
            future = datetime.now(UTC) + timedelta(days=2)
            return self._command(
                f"/v1/customers/{customer.id}/win-back", occurred_at=future.isoformat()
            )
        return self._command("/v1/customers", name="")


def _today() -> date:
    return datetime.now(UTC).date() - timedelta(days=1)  # in the past by every clock
