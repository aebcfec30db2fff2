"""Which answers can be had as pictures, and how they are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any, Final

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import Unavailable

PNG: Final = "image/png"
SVG: Final = "image/svg+xml"

DRAWN: Final[Mapping[str, tuple[str, str]]] = {
    "/v1/funnel": ("funnel", "funnel"),
    "/v1/forecast": ("funnel", "forecast"),
    "/v1/lifecycle": ("lifecycle", "distribution"),
    "/v1/lifecycle/flows": ("lifecycle", "flows"),
    "/v1/attribution": ("attribution", "credits"),
    "/v1/attribution/comparison": ("attribution", "comparison"),
}
"""Path → the module here, and the function in it, that draw its answer. Loaded with the first
picture: most processes never draw one."""

_SUFFIXES = {".png": PNG, ".svg": SVG}
WAITING: Final = 20
"""Pictures that may wait to be drawn: one is drawn at a time, as matplotlib demands."""


class Pictures:
    """Pure ASGI: gives the answer of a read as PNG or SVG where the path ends in `.png` or `.svg`,
    or the `Accept` header prefers one of these to JSON. Problems stay problems."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        path, kind = _asked(scope)
        if path not in DRAWN:
            await self._app(scope, receive, send)
            return
        scope["path"], scope["raw_path"] = path, path.encode()
        answer = _Held(send, kept=kind is not None)
        await self._app(scope, receive, answer.take)
        if kind is not None and answer.held:
            await self._draw(path, kind, answer, scope, receive, send)

    async def _draw(
        self, path: str, kind: str, answer: _Held, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if self._waiting >= WAITING:
            raise Unavailable("Too many pictures are being drawn.")
        content = orjson.loads(b"".join(answer.body))
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            picture = await loop.run_in_executor(self._thread, drawn, path, content, kind)
        finally:
            self._waiting -= 1
        headers = {"Vary": "Accept", "X-Content-Type-Options": "nosniff"}
        if kind == SVG:
            headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
        response = Response(picture, media_type=kind, headers=headers)
        await response(scope, receive, send)


def drawn(path: str, content: Mapping[str, Any], kind: str) -> bytes:
    """The answer of the read at `path` as a picture of that kind."""
    module, name = DRAWN[path]
    draw = getattr(import_module(f"api.plots.{module}"), name)
    picture: bytes = import_module("api.plots.paper").rendered(draw, content, png=kind == PNG)
    return picture


class _Held:
    """Takes an answer: a good one is held back to be drawn, anything else goes straight through."""

    def __init__(self, send: Send, *, kept: bool) -> None:
        self._send = send
        self._kept = kept
        self.held = False
        self.body: list[bytes] = []

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.held = self._kept and message["status"] == 200
            if not self.held:
                MutableHeaders(scope=message).add_vary_header("Accept")
        if not self.held:
            await self._send(message)
        elif message["type"] == "http.response.body":
            self.body.append(message.get("body", b""))


def _asked(scope: Scope) -> tuple[str, str | None]:
    """The path of the read, and the kind of picture that is asked for, if any."""
    path: str = scope["path"]
    for suffix, kind in _SUFFIXES.items():
        if path.endswith(suffix):
            return path.removesuffix(suffix), kind
    return path, _preferred(Headers(scope=scope).get("accept", ""))


def _preferred(accept: str) -> str | None:
    """The picture that is named with a higher quality than JSON, the first of equals. Of a header
    that names everything, or prefers nothing, the answer is JSON."""
    # A browser that shows a page names pictures as well, and is better served with the answer.
    best, found = _quality(accept, ("application/json", "application/*", "text/html")), None
    for kind in (PNG, SVG):
        quality = _quality(accept, (kind,))
        if quality > best:
            best, found = quality, kind
    if found is None and best == 0 and _quality(accept, ("image/*",)) > 0:
        return PNG if _quality(accept, ("*/*",)) == 0 else None
    return found


def _quality(accept: str, kinds: Iterable[str]) -> float:
    found = 0.0
    for part in accept.split(","):
        name, _, rest = part.partition(";")
        if name.strip().lower() in kinds:
            quality = 1.0
            for parameter in rest.split(";"):
                key, _, value = parameter.partition("=")
                if key.strip().lower() == "q":
                    try:
                        quality = min(max(float(value), 0.0), 1.0)
                    except ValueError:
                        quality = 0.0
            found = max(found, quality)
    return found


def described(paths: Mapping[str, Any]) -> None:
    """Adds the pictures to the answers in an OpenAPI description's paths."""
    for path in DRAWN:
        if path in paths:
            content = paths[path]["get"]["responses"]["200"]["content"]
            for kind in (PNG, SVG):
                content[kind] = {"schema": {"type": "string", "format": "binary"}}
            paths[path]["get"]["summary"] += " (also as a picture)"
