"""Levels and alerts by rule (R64, R65, R69, R76), from commands through the API to its reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.definitions import LevelDefinition
from domain.errors import DomainError
from domain.policies.demand import Demand
from domain.policies.levels import Levels
from domain.policies.passive_loss import PassiveLoss
from infra.eventstore.feed import StoreFeed
from infra.eventstore.policy_memory import PolicyMemory
from infra.postgres import Pool, connect
from tests.e2e.api.making import amount, customer
from tests.e2e.api.running import Client, Product
from workers.policies import Policy, PolicyWorker, give_all
from workers.steps import Step, Steps
from workers.wiring import Databases, ledger

LEVELS = Levels(LevelDefinition(window_days=10, new_days=20, overdue_days=3, value_days=30))


def run(product: Product, policy: Policy) -> None:
    """Until there is nothing left to do, as a process of its own does."""
    addresses = Databases(product.database_url, product.database_url)
    with ledger(product.settings, addresses, product.clock) as book, asyncio.Runner() as runner:
        steps = Steps(book.commands, b"policies")
        pools = [
            Pool(addresses.log, size=1, role="crm_writer", search_path=["log"], autocommit=each)
            for each in (True, False)
        ]

        def give(given: Sequence[Step], actor: str) -> list[DomainError | None]:
            return runner.run(give_all(steps, given, actor))

        worker = PolicyWorker(
            policy,
            application=book.crm,
            feed=StoreFeed(pools[0], book.doorbell, policy.topics),
            memory=PolicyMemory(pools[1], policy),
            give=give,
            clock=product.clock,
        )
        while worker.step():
            pass
        for pool in pools:
            pool.close()
        runner.run(book.commands.close())


def recorded(product: Product, topic: str) -> list[Any]:
    connection = connect(product.database_url, search_path=["log"])
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT convert_from(state, 'UTF8')::jsonb, occurred_at, position FROM events"
                " WHERE topic = %s AND actor LIKE 'policy:%%' ORDER BY position",
                [topic],
            )
            return cursor.fetchall()
    finally:
        connection.close()


@pytest.fixture
def own(start_product: Callable[..., Product]) -> Product:
    return start_product()


def ordered(client: Client, id_: str, on: datetime, value: str, cost: str | None = None) -> None:
    body = {"order_id": on.isoformat(), "amount": amount(value), "occurred_at": on.isoformat()}
    if cost is not None:
        body["cost"] = amount(cost)
    client.done(f"/v1/customers/{id_}/orders", body)


def test_a_customer_goes_through_all_six_levels(own: Product) -> None:
    """R64: each by its rule, with the evidence."""
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(days=100)
    with own.client() as client:
        acme = customer(client, occurred_at=begin.isoformat())
        for on, value, cost in (
            (0, "100.00", None),
            (5, "100.00", None),
            (15, "100.00", None),
            (25, "300.00", None),
            (75, "10.00", "20.00"),
        ):
            ordered(client, acme, begin + timedelta(days=on), value, cost)
        payment = {"kind": "overdue", "reference": "inv-7", "amount": amount("9.00")}
        overdue_on = (begin + timedelta(days=80)).isoformat()
        client.done(f"/v1/customers/{acme}/payments", {**payment, "occurred_at": overdue_on})
        run(own, LEVELS)
        moves = recorded(own, "crm.customer.level-changed")
        found = [(state["level"], (on - begin).days) for state, on, _ in moves]
        assert found == [
            ("stable", 20),
            ("growing", 25),
            ("declining", 35),
            ("no-value", 75),
            ("problem", 83),
        ]
        assert {state["evidence"]["rule"] for state, _, _ in moves} == {LEVELS.id}
        assert moves[1][0]["evidence"]["figures"]["growth"] == "2.000000"
        client.position = moves[-1][2]
        for level, on in (("new", 0), *found):
            as_of = (begin + timedelta(days=on, hours=1)).isoformat()
            seen = client.read(f"/v1/customers/{acme}", as_of=as_of)
            assert seen["lifecycle"]["level"]["value"] == level
        why = client.read(
            f"/v1/customers/{acme}/lifecycle",
            as_of=(begin + timedelta(days=35, hours=1)).isoformat(),
        )["standing"]["level"]
        assert (why["value"], why["rule"]) == ("declining", LEVELS.id)
        assert why["evidence"].items() >= {"revenue": "0.00", "revenue_before": "300.00"}.items()
        assert client.read("/v1/lifecycle/causes")["declines"] == [
            {"level": level, "rule": LEVELS.id, "moves": 1}
            for level in ("declining", "no-value", "problem")
        ]
    run(own, LEVELS)
    assert len(recorded(own, "crm.customer.level-changed")) == len(moves)


def test_who_buys_nothing_for_so_long_is_lost_passively(own: Product) -> None:
    """R65: by the policy, on the day; a customer that somebody gave up is lost actively."""
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(days=100)
    with own.client() as client:
        silent, told, buying = (customer(client, occurred_at=begin.isoformat()) for _ in range(3))
        for who in (silent, told, buying):
            ordered(client, who, begin, "100.00")
        ordered(client, buying, begin + timedelta(days=80), "100.00")
        left = {"cause": "competitor", "occurred_at": (begin + timedelta(days=10)).isoformat()}
        client.done(f"/v1/customers/{told}/churn", left)
        policy = PassiveLoss(30)
        run(own, policy)
        client.position = recorded(own, "crm.customer.churned")[-1][2]

        def lost(**asked: str) -> list[tuple[str, str, int, str | None]]:
            rows = client.read("/v1/lifecycle/losses", **asked)["items"]
            at = [datetime.fromisoformat(row["lost_at"]) for row in rows]
            return [
                (row["customer_id"], row["cause"], (day - begin).days, row["rule"])
                for row, day in zip(rows, at, strict=True)
            ]

        assert lost(active="true") == [(told, "competitor", 10, None)]
        by_silence = lost(active="false")
        assert (silent, "silence", 30, policy.id) in by_silence
        before = client.read(
            f"/v1/customers/{silent}", as_of=(begin + timedelta(days=29)).isoformat()
        )
        assert before["lifecycle"]["type"]["value"] == "relationship"
        assert client.read(f"/v1/customers/{silent}")["lifecycle"]["type"]["value"] == "lost"
        assert client.read(f"/v1/customers/{told}")["lifecycle"]["type"]["value"] == "lost"
        standing = client.read(f"/v1/customers/{buying}")["lifecycle"]["type"]["value"]
        assert standing == "relationship"


def test_demand_is_alerted_on_the_day_and_once(own: Product) -> None:
    """R69: by cycle and by stock; R76: never for one-off business."""
    with own.client() as client:
        acme, one_off = customer(client), customer(client)
        described = {"repeat_type": "periodic", "cycle_days": 30, "stock_alert_below": "10"}
        client.done(f"/v1/customers/{acme}/demand", described)
        client.done(f"/v1/customers/{one_off}/demand", {"repeat_type": "project"})
        for each in (acme, one_off):
            client.done(f"/v1/customers/{each}/orders", {"order_id": "1", "amount": amount()})

        def alerts() -> list[str]:
            run(own, Demand())
            return [row[0]["kind"] for row in recorded(own, "crm.customer.demand-alerted")]

        own.clock.ahead = timedelta(days=29, hours=23)
        assert alerts() == []
        own.clock.ahead = timedelta(days=30, hours=1)
        assert alerts() == ["cycle"]
        own.clock.ahead = timedelta(days=300)
        assert alerts() == ["cycle"]
        for level in ("9", "8", "12", "9.5"):
            client.done(f"/v1/customers/{acme}/stock", {"level": level})
            found = alerts()
        assert found == ["cycle", "stock", "stock"]
