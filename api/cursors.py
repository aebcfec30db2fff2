"""Keyset cursors: where a list goes on. Signed, and bound to the list they were made for."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson

from api.errors import InvalidCursor

MAX_CURSOR_LENGTH = 2048
_SIGNATURE = 16


class Cursors:
    """Makes and reads cursors. `query` is everything that decides what the list holds."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encode(self, after: tuple[str, UUID], query: Mapping[str, Any]) -> str:
        value, id_ = after
        content = orjson.dumps([value, id_.hex])
        return (
            base64.urlsafe_b64encode(self._signature(content, query) + content)
            .rstrip(b"=")
            .decode()
        )

    def decode(self, cursor: str, query: Mapping[str, Any]) -> tuple[str, UUID]:
        """Where the list goes on. Raises InvalidCursor for any cursor not made here for it."""
        try:
            if len(cursor) > MAX_CURSOR_LENGTH:
                raise ValueError
            padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
            raw = base64.b64decode(padded, altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            raise InvalidCursor from None
        signature, content = raw[:_SIGNATURE], raw[_SIGNATURE:]
        if not hmac.compare_digest(signature, self._signature(content, query)):
            raise InvalidCursor
        value, id_ = orjson.loads(content)
        return value, UUID(hex=id_)

    def _signature(self, content: bytes, query: Mapping[str, Any]) -> bytes:
        described = orjson.dumps(query, option=orjson.OPT_SORT_KEYS, default=str)
        bound = hashlib.sha256(described).digest()
        return hmac.digest(self._key, bound + content, "sha256")[:_SIGNATURE]
