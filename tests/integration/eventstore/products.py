"""The write path as one process of the product has it; two of them on one log are two processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from domain.values import ChurnCause, CustomerKind, Level, Money
from infra.commands import Answer, Commands, LoopCRM, Request
from infra.eventstore.committer import Committer
from infra.eventstore.factory import Factory

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


class Product:
    """An application, its commands and a clock that moves when told to."""

    def __init__(self, environment: Mapping[str, str], **commands: Any) -> None:
        self.now = NOON
        self.crm = LoopCRM(dict(environment), clock=lambda: self.now, timezone=ZoneInfo("UTC"))
        assert isinstance(self.crm.factory, Factory)
        self.factory: Factory = self.crm.factory
        self.commands = Commands(self.crm, self.factory.vault, **commands)

    @property
    def committer(self) -> Committer:
        return self.factory.committer

    async def leave(self) -> None:
        await self.commands.close()
        self.crm.close()

    def tick(self) -> None:
        self.now += timedelta(minutes=1)

    async def do(
        self,
        target: UUID,
        decide: Callable[[], Any],
        key: str | None = None,
        *,
        request_hash: bytes = b"#",
        **request: Any,
    ) -> Answer:
        asked = Request("tester", key, request_hash, **request)
        return await self.commands.execute(decide, target=target, request=asked)

    async def register(
        self,
        id_: UUID,
        key: str | None = None,
        *,
        kind: CustomerKind = CustomerKind.COMPANY,
        name: str = "Acme",
        attributes: Mapping[str, Any] | None = None,
        **request: Any,
    ) -> Answer:
        return await self.do(
            id_,
            lambda: self.crm.register_customer(id_, kind=kind, name=name, attributes=attributes),
            key,
            **request,
        )

    async def order(
        self, id_: UUID, order_id: str, key: str | None = None, amount: int = 1, **request: Any
    ) -> Answer:
        money = Money(Decimal(amount), "EUR")
        return await self.do(
            id_,
            lambda: self.crm.place_order(id_, order_id=order_id, amount=money),
            key,
            **request,
        )

    async def level(
        self, id_: UUID, level: Level, key: str | None = None, **request: Any
    ) -> Answer:
        return await self.do(id_, lambda: self.crm.change_level(id_, level=level), key, **request)

    async def churn(self, id_: UUID, key: str | None = None, **request: Any) -> Answer:
        return await self.do(
            id_, lambda: self.crm.churn(id_, cause=ChurnCause.PRICE), key, **request
        )

    async def rename(self, id_: UUID, name: str, key: str | None = None, **request: Any) -> Answer:
        return await self.do(id_, lambda: self.crm.change_profile(id_, name=name), key, **request)
