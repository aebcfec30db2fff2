"""Many commands in one request: decided side by side, answered in order, in bounded memory.

Lines are taken as they arrive. Up to `WINDOW` of them are under way at once, so that they share
commits; a line waits for earlier ones that write a stream which it names. Each line is atomic by
itself. Answers that the client does not take yet wait in a temporary file, so a client that sends
everything before it reads anything is served as well.
"""

import asyncio
from collections.abc import AsyncIterator
from tempfile import SpooledTemporaryFile
from typing import Any
from uuid import UUID

import orjson
from starlette.types import Receive, Send

from api.body import parse_json
from api.commands import Dispatcher, Origin, Work
from api.endpoint import content
from api.errors import BodyTooLarge, InvalidRequest, problem_of
from api.tokens import Principal

WINDOW = 128
IN_MEMORY = 1 << 20
CHUNK = 1 << 16
_NAMES = frozenset({"path", "key", "body"})

Line = bytes | Exception
_UnderWay = asyncio.Queue[asyncio.Task[bytes] | None]


class Bulk:
    """One request's lines, which are of one conversation and one trace."""

    def __init__(self, dispatcher: Dispatcher, principal: Principal, origin: Origin) -> None:
        self._dispatcher = dispatcher
        self._principal = principal
        self._origin = origin
        self._writers: dict[UUID, asyncio.Task[bytes]] = {}

    async def run(self, lines: AsyncIterator[tuple[int, Line]], send: Send) -> None:
        """Carries out the lines and sends the answers as the body of the response.

        What has begun is finished, whether or not anybody still listens.
        """
        under_way: _UnderWay = asyncio.Queue(WINDOW)
        answers = _Spool()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_deliver(answers, send))
                group.create_task(_collect(under_way, answers))
                async for number, line in lines:
                    await under_way.put(self._begin(number, line))
                await under_way.put(None)
        finally:
            answers.close()

    def _begin(self, number: int, line: Line) -> asyncio.Task[bytes]:
        try:
            work: Work | Exception = self._prepared(line)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a line is its answer
            work = error
        if isinstance(work, Exception):
            return asyncio.create_task(_refused(number, work))
        named = work.named()
        first = [self._writers[id_] for id_ in named if id_ in self._writers]
        task = asyncio.create_task(self._line(number, work, first))
        stream = work.stream()
        if stream is not None:
            self._writers[stream] = task
            task.add_done_callback(lambda done: self._forget(stream, done))
        return task

    def _forget(self, stream: UUID, done: asyncio.Task[bytes]) -> None:
        if self._writers.get(stream) is done:
            del self._writers[stream]

    def _prepared(self, line: Line) -> Work:
        if isinstance(line, Exception):
            raise line
        value, _ = parse_json(line)
        if not isinstance(value, dict) or not value.keys() <= _NAMES:
            raise InvalidRequest.of_parameter("#", "is not an object of path, key and body")
        path, key, body = (value.get(name) for name in ("path", "key", "body"))
        if not isinstance(path, str) or not isinstance(key, str):
            raise InvalidRequest.of_parameter("#", "holds path and key as texts")
        return self._dispatcher.prepare(
            path, key, {} if body is None else body, self._principal, self._origin
        )

    async def _line(self, number: int, work: Work, first: list[asyncio.Task[bytes]]) -> bytes:
        if first:
            await asyncio.wait(first)
        try:
            answer = await self._dispatcher.execute(work)
        except Exception as error:  # noqa: BLE001 - its problem is the line's answer
            return _problem(number, error)
        return _dumped({"line": number, "status": answer.status, **content(answer)})


async def _refused(number: int, error: Exception) -> bytes:
    return _problem(number, error)


def _problem(number: int, error: Exception) -> bytes:
    problem = problem_of(error)
    return _dumped({"line": number, "status": problem.status, "problem": problem.content()})


def _dumped(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


def array_lines(raw: bytes) -> AsyncIterator[tuple[int, Line]]:
    """The elements of a JSON array. Raises MalformedBody, InvalidRequest."""
    value, _ = parse_json(raw)
    if not isinstance(value, list):
        raise InvalidRequest.of_parameter("#", "is not an array")
    return _elements(value)


async def _elements(value: list[Any]) -> AsyncIterator[tuple[int, Line]]:
    for number, element in enumerate(value, 1):
        yield number, orjson.dumps(element)


async def stream_lines(receive: Receive, limit: int) -> AsyncIterator[tuple[int, Line]]:
    """Lines as they arrive, numbered from 1; blank ones are left out.

    One of more than `limit` bytes is a BodyTooLarge in its place. Ends early when the client goes.
    """
    rest, number, overlong = bytearray(), 0, False
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return
        more = message.get("more_body", False)
        *complete, tail = message.get("body", b"").split(b"\n")
        for piece in complete:
            number += 1
            if overlong or len(rest) + len(piece) > limit:
                yield number, BodyTooLarge(limit)
            else:
                line = bytes(rest + piece).strip()
                if line:
                    yield number, line
            rest.clear()
            overlong = False
        if not overlong:
            rest += tail
            if len(rest) > limit:
                overlong = True
                rest.clear()
    number += 1
    if overlong:
        yield number, BodyTooLarge(limit)
    elif rest.strip():
        yield number, bytes(rest).strip()


async def _collect(under_way: _UnderWay, answers: "_Spool") -> None:
    while (task := await under_way.get()) is not None:
        answers.put(await task)
    answers.end()


async def _deliver(answers: "_Spool", send: Send) -> None:
    async for chunk in answers.chunks():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Spool:
    """First in, first out: in memory while short, in a temporary file when not."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - closed by `close`
        self._read = self._written = 0
        self._ended = False
        self._changed = asyncio.Event()

    def put(self, data: bytes) -> None:
        self._file.seek(self._written)
        self._file.write(data)
        self._written += len(data)
        self._changed.set()

    def end(self) -> None:
        self._ended = True
        self._changed.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        while True:
            if self._read < self._written:
                self._file.seek(self._read)
                data = self._file.read(CHUNK)
                self._read += len(data)
                if self._read == self._written:
                    self._read = self._written = 0
                    self._file.seek(0)
                    self._file.truncate()
                yield data
            elif self._ended:
                return
            else:
                self._changed.clear()
                await self._changed.wait()

    def close(self) -> None:
        self._file.close()
