"""Streams of events for those who audit: in bounded memory, however long and however slowly read.

A batch is read and made into lines in a thread, on a connection that is back in its pool before the
first byte is sent; the next is read when the client has taken this one. So a client that stalls
holds one batch in memory, and nothing in the database. One that takes nothing for `PATIENCE`
seconds, or goes away, ends the work.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import orjson
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as Asked

from api.errors import Unavailable, problem_of
from api.reads import Reads
from api.tokens import Principal, Scope
from infra.history.lines import Lines
from infra.history.reading import Reading
from infra.history.texts import Marked, OnHandout, Opened, Texts
from infra.postgres import Pool
from infra.vault import Vault

NDJSON_TYPE: Final = "application/x-ndjson"
AT_ONCE: Final = 16
"""Streams that are being sent; others are asked to come again."""
WORKING: Final = 2
"""Batches that are being made at a time, so that reads and commands keep their turn."""
PATIENCE: Final = 300.0


class Handouts:
    """Tells of personal text before it leaves, once for each answer."""

    def __init__(self, told: OnHandout, actor: str, through: int) -> None:
        self._told = told
        self._actor = actor
        self._through = through
        self._done = False

    def leaving(self, texts: Texts, first: int) -> None:
        """`first`: the lowest position that is about to leave."""
        if texts.clear and not self._done:
            last = max(first, self._through)
            self._told(kind="replay", actor=self._actor, first=first, last=last)
            self._done = True


class Replays:
    """How many streams this process sends at a time."""

    def __init__(self, reads: Reads, pool: Pool, vault: Vault, told: OnHandout) -> None:
        """`pool` reads the log; `told` hears of handouts."""
        self._reads = reads
        self.pool = pool
        self._vault = vault
        self._told = told
        self._sending = 0
        self._working = asyncio.Semaphore(WORKING)

    def texts(self, principal: Principal) -> Texts:
        """As this principal may read them."""
        if Scope.PERSONAL in principal.scopes:
            return Opened(self._vault)
        return Marked(self._vault.erased)

    def handouts(self, principal: Principal, through: int) -> Handouts:
        """For one answer, that goes to the position `through` at most."""
        return Handouts(self._told, principal.subject, through)

    async def begin(
        self, reading: Reading, texts: Texts, handouts: Handouts, end: int
    ) -> "EventStream":
        """The answer, whose first batch is there already: what goes wrong so far is a problem
        like any other. Raises Unavailable."""
        if self._sending >= AT_ONCE:
            raise Unavailable("Too many replays are being sent.")
        lines = Lines(texts)

        def made() -> bytes:
            rows = reading.next()
            found = lines.of(rows)
            if rows:
                handouts.leaving(texts, rows[0].position)
            return found

        async def batch() -> bytes:
            async with self._working:
                return await self._reads.in_thread(made)

        first = await batch()
        return EventStream(self, reading, batch, first, end)

    def count(self, change: int) -> None:
        self._sending += change


class EventStream(Response):
    """The lines, and a last one that says where to go on."""

    def __init__(
        self,
        replays: Replays,
        reading: Reading,
        batch: Callable[[], Any],
        first: bytes,
        end: int,
    ) -> None:
        super().__init__(media_type=NDJSON_TYPE)
        del self.headers["content-length"]
        self.headers["X-Accel-Buffering"] = "no"
        self._replays = replays
        self._reading = reading
        self._batch = batch
        self._first = first
        self._end = end

    async def __call__(self, scope: Asked, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        gone = asyncio.create_task(_gone(receive))
        self._replays.count(+1)
        try:
            await self._send_all(send, gone)
        finally:
            self._replays.count(-1)
            gone.cancel()

    async def _send_all(self, send: Send, gone: asyncio.Task[None]) -> None:
        chunk = self._first
        problem: dict[str, Any] | None = None
        while True:
            if chunk:
                try:
                    async with asyncio.timeout(PATIENCE):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                except TimeoutError:
                    return  # what is not complete is closed by the server
            sent = self._reading.position
            if gone.done():
                return
            if self._reading.ended:
                break
            try:
                chunk = await self._batch()
            except Exception as error:  # noqa: BLE001  (the status was sent: the last line says it)
                problem = problem_of(error).content()
                break
        last: dict[str, Any] = {"next_after": sent, "end": self._end}
        if problem is not None:
            last["problem"] = problem
        body = orjson.dumps(last, option=orjson.OPT_APPEND_NEWLINE)
        await send({"type": "http.response.body", "body": body, "more_body": False})


async def _gone(receive: Receive) -> None:
    """Ends when the client goes."""
    while (await receive())["type"] != "http.disconnect":
        pass
