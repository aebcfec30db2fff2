"""What one writes in an afternoon: FastAPI over the library's application, as their guides have it.

Environment: `PERSISTENCE_MODULE` and `POSTGRES_*` as the library has them. Prints the port it
listens on. No idempotency, no scopes, no limits, no receipt.
"""

from __future__ import annotations

import socket
import sys
from decimal import Decimal
from uuid import UUID

import uvicorn
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from fastapi import FastAPI
from pydantic import BaseModel


class Amount(BaseModel):
    value: Decimal
    currency: str


class NewDeal(BaseModel):
    customer_id: UUID
    name: str
    amount: Amount
    expected_close: str
    owner: str


class NewAmount(BaseModel):
    amount: Amount


class Deal(Aggregate):
    """A deal as the benchmark's commands need it."""

    @event("Opened")
    def __init__(
        self, customer_id: str, name: str, value: str, currency: str, close: str, owner: str
    ) -> None:
        self.customer_id, self.name, self.owner = customer_id, name, owner
        self.value, self.currency, self.close = value, currency, close

    @event("AmountChanged")
    def change_amount(self, value: str, currency: str) -> None:
        """Ask another amount."""
        self.value, self.currency = value, currency


deals: Application[UUID] = Application()
app = FastAPI()


@app.post("/v1/opportunities", status_code=201)
def opened(new: NewDeal) -> dict[str, str]:
    """Open a deal."""
    amount = new.amount
    deal = Deal(
        str(new.customer_id), new.name, str(amount.value), amount.currency, new.expected_close,
        new.owner,
    )  # fmt: skip
    deals.save(deal)
    return {"id": str(deal.id)}


@app.post("/v1/opportunities/{deal_id}/amount")
def amount_changed(deal_id: UUID, new: NewAmount) -> dict[str, str]:
    """Ask another amount."""
    deal: Deal = deals.repository.get(deal_id)
    deal.change_amount(str(new.amount.value), new.amount.currency)
    deals.save(deal)
    return {"id": str(deal.id)}


def main() -> None:
    """Until it is told to stop."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        config = uvicorn.Config(app, log_config=None, access_log=False)
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
