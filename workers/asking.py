"""A client of the API, for what the terminal shows: asks as anybody else would, by HTTP."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

import orjson

from infra.settings import Settings

_PATIENCE: Final = 120.0
_LARGEST: Final = 64 * 1024 * 1024
_TOKEN: Final = re.compile(r"[\x21-\x7e][\x20-\x7e]*")
_HERE: Final = ("127.0.0.1", "::1", "localhost")


class NotAnswered(RuntimeError):
    """The API cannot be reached, or refused; the text says why, and what to do."""


class _NoRedirect(HTTPRedirectHandler):
    """A token goes nowhere but where it was meant to go."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Api:
    """The API at an address, asked with a token."""

    def __init__(self, url: str, token: str) -> None:
        host = _host(url)
        if host is None:
            raise NotAnswered(f"{url} is not an address of the API, as http://127.0.0.1:8000")
        if not _TOKEN.fullmatch(token):
            raise NotAnswered("what should be the token is none")
        self._url = url.rstrip("/")
        self._token = token
        # A proxy could not reach what is on this machine, but would be told the token.
        direct = [ProxyHandler({})] if host in _HERE else []
        self._opener = build_opener(_NoRedirect, *direct)

    @classmethod
    def of(cls, settings: Settings, url: str | None, token_file: Path | None) -> Api:
        """By default the one on this machine, with the token it made at its first start."""
        host = settings.host if settings.host not in ("0.0.0.0", "::") else "127.0.0.1"  # noqa: S104
        host = f"[{host}]" if ":" in host else host
        file = token_file or settings.token_file
        try:
            token = file.read_text().strip()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise NotAnswered(f"the token in {file} cannot be read: {reason}") from None
        except UnicodeDecodeError:
            raise NotAnswered(f"the token in {file} cannot be read: it is no text") from None
        return cls(url or f"http://{host}:{settings.port}", token)

    def read(self, path: str, parameters: Mapping[str, object]) -> dict[str, Any]:
        """The answer. Raises NotAnswered."""
        content = self._get(path, parameters, "application/json")
        try:
            answer: dict[str, Any] = orjson.loads(content)
        except orjson.JSONDecodeError:
            raise NotAnswered(f"what answers at {self._url} is not the API") from None
        return answer

    def picture(self, path: str, parameters: Mapping[str, object], file: Path) -> None:
        """Writes the answer as a picture; the file's name ends in .png or .svg."""
        kinds = {".png": "image/png", ".svg": "image/svg+xml"}
        kind = kinds.get(file.suffix.lower())
        if kind is None:
            raise NotAnswered(f"{file}: a picture's name ends in .png or .svg")
        content = self._get(path, parameters, kind)
        if not content.startswith(b"\x89PNG" if kind == "image/png" else b"<"):
            raise NotAnswered(f"what answers at {self._url} sends no picture")
        try:
            file.write_bytes(content)
        except OSError as error:
            raise NotAnswered(f"{file}: {error.strerror or type(error).__name__}") from None

    def _get(self, path: str, parameters: Mapping[str, object], accept: str) -> bytes:
        query = urlencode({name: str(v) for name, v in parameters.items() if v is not None})
        headers = {"Authorization": f"Bearer {self._token}", "Accept": accept}
        request = Request(f"{self._url}{path}?{query}", headers=headers)  # noqa: S310 (see __init__)
        try:
            with self._opener.open(request, timeout=_PATIENCE) as response:
                found: bytes = response.read(_LARGEST)
                return found
        except HTTPError as error:
            with error:
                raise NotAnswered(_told(error)) from None
        except (URLError, HTTPException, OSError) as error:
            reason = getattr(error, "reason", error)
            raise NotAnswered(
                f"the API at {self._url} does not answer ({reason}): start it with crm up,"
                " or name another with --url"
            ) from None


def _host(url: str) -> str | None:
    """The host that the address names; None for what is no address of the web."""
    try:
        parts = urlsplit(url)
        return parts.hostname if parts.scheme in ("http", "https") else None
    except ValueError:
        return None


def _told(error: HTTPError) -> str:
    """What a problem says, as one line."""
    try:
        problem = orjson.loads(error.read(_LARGEST))
        return str(problem.get("detail") or problem["title"])
    except (orjson.JSONDecodeError, KeyError, TypeError, OSError):
        return f"the API answers {error.code}"
