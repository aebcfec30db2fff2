"""Five years of a large company, for questions: written by COPY and put in order by the server."""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from domain.campaign import Campaign
from domain.customer import Customer
from domain.opportunity import Opportunity
from domain.pipeline import DEFAULT_PIPELINE_ID, DEFAULT_STAGES, Pipeline
from domain.values import CustomerKind, Level, Money
from infra.eventstore.transcoder import event_codec
from infra.postgres import connect
from tests.bench.rounds import tell

START = datetime(2021, 1, 1, tzinfo=UTC)
YEARS = timedelta(days=5 * 365)
END = START + YEARS
LATE = 0.03
"""Of the facts come to be known only weeks after they were true."""

_LINES = 200_000
_Fact = tuple[datetime, datetime, UUID, UUID, Any, dict[str, Any]]
"""When, when recorded, stream, partition key, event class, fields."""

_STAGING = """CREATE UNLOGGED TABLE staging (recorded_at timestamptz, occurred_at timestamptz,
    stream_id uuid, version int, partition_key uuid, topic text, class_version int, state bytea)"""
_IN_ORDER = """INSERT INTO log.events (position, stream_id, version, topic, class_version,
        partition_key, occurred_at, recorded_at, actor, command_id, correlation_id, state)
    SELECT row_number() OVER (ORDER BY recorded_at, stream_id, version), stream_id, version, topic,
        class_version, partition_key, occurred_at, recorded_at, 'bench', stream_id, stream_id, state
    FROM staging ORDER BY 1"""


def fill(admin_url: str, deals: int, seed: int = 11) -> int:
    """Put so many deals, and about five times as many events, into an empty log; how many."""
    connection = connect(admin_url)
    with connection, connection.cursor() as cursor:
        cursor.execute(_STAGING)
        lines = _Market(seed, deals).lines()
        while some := list(itertools.islice(lines, _LINES)):
            cursor.copy_expert("COPY staging FROM STDIN", io.BytesIO("".join(some).encode()))
        tell("  putting the log in order")
        cursor.execute("SET LOCAL work_mem TO '512MB'")
        cursor.execute(_IN_ORDER)
        events = cursor.rowcount
        cursor.execute(
            "UPDATE log.head SET position = %s,"
            " recorded_at = (SELECT max(recorded_at) FROM log.events)",
            [events],
        )
        cursor.execute("DROP TABLE staging")
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE log.events")
    connection.close()
    return events


class _Market:
    """Customers come all the time, answer campaigns that run, open deals and order."""

    def __init__(self, seed: int, deals: int) -> None:
        self._random = random.Random(seed)
        self._deals = deals
        self._campaigns = [self._id() for _ in range(max(12, deals // 1_000))]

    def lines(self) -> Iterator[str]:
        """Lines of COPY, the streams of each customer together."""
        pipeline = {"name": "project sale", "stages": DEFAULT_STAGES, "approvals": ()}
        key = DEFAULT_PIPELINE_ID
        yield from _lines([(START, START, key, key, Pipeline.Created, pipeline)])
        for number in range(len(self._campaigns)):
            yield from _lines(self._campaign(number))
        opened = customers = 0
        while opened < self._deals:
            deals = min(self._random.choice([0, 1, 1, 2, 3, 5]), self._deals - opened)
            yield from _lines(self._customer(customers, deals))
            opened, customers = opened + deals, customers + 1
            if customers % 50_000 == 0:
                tell(f"  {opened:,} deals made up")

    def _id(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)

    def _money(self) -> Money:
        currency = "EUR" if self._random.random() < 0.05 else "CNY"
        return Money(Decimal(self._random.randint(1_000, 900_000)), currency)

    def _later(self, at: datetime, days: float) -> datetime:
        return at + timedelta(days=self._random.uniform(0.1, days))

    def _known(self, at: datetime) -> datetime:
        return self._later(at, 60) if self._random.random() < LATE else at

    def _running(self, at: datetime) -> UUID:
        """One of the campaigns that run about then."""
        place = int((at - START) / YEARS * len(self._campaigns)) - self._random.randint(0, 20)
        return self._campaigns[min(max(place, 0), len(self._campaigns) - 1)]

    def _campaign(self, number: int) -> Iterator[_Fact]:
        campaign, at = self._campaigns[number], START + YEARS * number / len(self._campaigns)
        fields = {
            "name": f"Campaign {number}", "channel": self._random.choice(["web", "fair", "visit"]),
            "region": self._random.choice(["north", "south", None]), "starts_on": at.date(),
            "ends_on": (at + timedelta(days=60)).date(),
            "budget": Money(Decimal(self._random.randint(10, 90) * 1_000), "CNY"),
        }  # fmt: skip
        yield at, at, campaign, campaign, Campaign.Created, fields
        for hours, event in enumerate((Campaign.Submitted, Campaign.Started), 1):
            then = at + timedelta(hours=hours)
            yield then, then, campaign, campaign, event, {}
        for day in range(10):
            then = at + timedelta(days=1 + 5 * day)
            amount = Money(Decimal(self._random.randint(1_000, 9_000)), "CNY")
            cost = {"amount": amount, "reference": f"invoice {day}"}
            yield then, self._known(then), campaign, campaign, Campaign.CostBooked, cost

    def _customer(self, number: int, deals: int) -> Iterator[_Fact]:
        customer = self._id()
        at = START + (YEARS - timedelta(days=60)) * self._random.random()

        def told(then: datetime, event: Any, **fields: Any) -> _Fact:
            return then, self._known(then), customer, customer, event, fields

        fields: dict[str, Any] = {
            "kind": CustomerKind.COMPANY, "name": f"Company {number}",
            "identified": self._random.random() < 0.7, "industry": "retail", "attributes": {},
            "region": self._random.choice(["north", "south", "east"]),
            "source": self._random.choice(["web", "fair", None]),
        }  # fmt: skip
        yield at, at, customer, customer, Customer.Created, fields
        for _ in range(self._random.choice([0, 1, 1, 2, 4])):
            then = self._later(at, 200)
            campaign = self._running(then)
            yield told(
                then, Customer.CampaignResponded, campaign_id=campaign, channel="web", kind="click"
            )
        for order in range(self._random.choice([0, 0, 0, 1, 3])):
            order_id = f"{number}-{order}"
            yield told(
                self._later(at, 400), Customer.OrderPlaced, order_id=order_id, amount=self._money()
            )
        for level in self._random.sample(list(Level), self._random.choice([0, 0, 1, 2])):
            yield told(self._later(at, 600), Customer.LevelChanged, level=level)
        for _ in range(deals):
            yield from self._deal(customer, self._later(at, 300))

    def _deal(self, customer: UUID, at: datetime) -> Iterator[_Fact]:
        deal, amount = self._id(), self._money()
        first = self._random.choices([0, 1, 2], [6, 3, 1])[0]
        names = [stage.name for stage in DEFAULT_STAGES][first:]
        opened = {
            "customer_id": customer, "name": "Pumps", "amount": amount, "stage": names[0],
            "pipeline_id": DEFAULT_PIPELINE_ID, "pipeline_revision": 1,
            "expected_close": (at + timedelta(days=90)).date(),
            "owner": f"rep-{self._random.randint(1, 200)}",
            "campaign_id": self._running(at) if self._random.random() < 0.4 else None,
        }  # fmt: skip
        yield at, at, deal, customer, Opportunity.Created, opened

        def told(then: datetime, event: Any, **fields: Any) -> _Fact:
            return then, self._known(then), deal, customer, event, fields

        for here, there in itertools.pairwise(names):
            if self._random.random() < 0.35:
                break
            at = self._later(at, 50)
            yield told(
                at, Opportunity.StageAdvanced, from_stage=here, to_stage=there, pipeline_revision=1
            )
            if self._random.random() < 0.15:
                at = self._later(at, 5)
                yield told(
                    at,
                    Opportunity.AmountChanged,
                    previous=amount,
                    amount=Money(amount.value + 500, amount.currency),
                )
        at, outcome = self._later(at, 60), self._random.random()
        if outcome < 0.4:
            yield told(at, Opportunity.ContractSigned, amount=amount, signed_on=at.date())
        elif outcome < 0.85:
            yield told(at, Opportunity.Lost, cause="price", competitor="Globex")
        elif outcome < 0.88:
            yield told(at, Opportunity.Suspended)


def _lines(facts: Iterable[_Fact]) -> Iterator[str]:
    """Each stream's facts in the order in which they were recorded, as far as there is time."""
    versions: dict[UUID, int] = {}
    for at, known, stream, key, event, fields in sorted(facts, key=lambda fact: fact[1]):
        if known > END:
            continue
        version = versions[stream] = versions.get(stream, 0) + 1
        codec = event_codec(event)
        state = codec.encode({**dict.fromkeys(codec.names), **fields}).hex()
        columns = (known, at, stream, version, key, event.TOPIC, codec.version, rf"\\x{state}")
        yield "\t".join(map(str, columns)) + "\n"
