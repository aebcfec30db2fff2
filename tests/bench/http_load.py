"""Load over HTTP from a process of its own: connections that each send one request after another.

Arguments: port, connections, seconds, `commands` or `empty`, and requests a second where they are
not to be sent as fast as they are answered. Environment: `TOKEN`, `CUSTOMER`.
`commands` opens deals and changes the amounts of existing ones by turns; `empty` posts the same
bodies to an endpoint that does nothing. Prints {"rate", "p50", "p99"} (per second, milliseconds).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import cast
from uuid import uuid4

import uvloop


class Client(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, mode: str, end: float, latencies: list[float], pace: float = 0.0) -> None:
        """`pace`: at least so many seconds from one request to the next."""
        self._mode = mode
        self._end = end
        self._pace = pace
        self._latencies = latencies
        self._token = os.environ["TOKEN"]
        self._customer = os.environ["CUSTOMER"]
        self._received = b""
        self._deal = ""
        self._count = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        opening = self._count % 2 == 0 or not self._deal
        if opening:
            path = "/v1/opportunities"
            body = {
                "customer_id": self._customer,
                "name": "Twenty pumps for the new hall",
                "amount": {"value": "125000.00", "currency": "EUR"},
                "expected_close": "2030-06-30",
                "owner": "rep-17",
            }
        else:
            path = f"/v1/opportunities/{self._deal}/amount"
            body = {"amount": {"value": f"{self._count + 1}.00", "currency": "EUR"}}
        if self._mode == "empty":
            path = "/empty"
        content = json.dumps(body).encode()
        self._count += 1
        self._opening = opening
        self._started = time.perf_counter()
        self._transport.write(
            (
                f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self._token}\r\n"
                f"Idempotency-Key: {uuid4().hex}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(content)}\r\n\r\n"
            ).encode()
            + content
        )

    def data_received(self, data: bytes) -> None:
        """Take the answer when it is whole, and send the next request."""
        self._received += data
        head, separator, rest = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if len(rest) < length:
            return
        status = int(head[9:12])
        if not 200 <= status < 300:
            self.done.set_exception(RuntimeError(f"{head!r} {rest[:500]!r}"))
            self._transport.close()
            return
        self._latencies.append(time.perf_counter() - self._started)
        if self._opening and self._mode == "commands":
            self._deal = json.loads(rest)["id"]
        self._received = b""
        now = time.perf_counter()
        if now < self._end:
            due = self._started + self._pace
            if due > now:
                asyncio.get_running_loop().call_later(due - now, self._send)
            else:
                self._send()
        else:
            self._transport.close()
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection that is closed under way is an error."""
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("closed by the server"))


async def measure(
    port: int, connections: int, seconds: float, mode: str, rate: float = 0.0
) -> dict[str, float]:
    """Requests a second and latencies in milliseconds; no more than `rate` a second, if given."""
    pace = connections / rate if rate else 0.0
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    started = time.perf_counter()
    end = started + seconds
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(
            lambda: Client(mode, end, latencies, pace), "127.0.0.1", port
        )
        clients.append(client)
    await asyncio.gather(*[client.done for client in clients])
    elapsed = time.perf_counter() - started
    latencies.sort()
    return {
        "rate": len(latencies) / elapsed,
        "p50": latencies[len(latencies) // 2] * 1000,
        "p99": latencies[int(len(latencies) * 0.99)] * 1000,
    }


def main() -> None:
    """One measurement."""
    port, connections, seconds, mode, *rate = sys.argv[1:6]
    result = uvloop.run(
        measure(int(port), int(connections), float(seconds), mode, *map(float, rate))
    )
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
