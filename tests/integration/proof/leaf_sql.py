"""The leaf as one SQL expression: another way to the same bytes than Python's and COPY's."""

from __future__ import annotations

from infra.proof.leaves import FIXED_SQL


def _counted(as_bytes: str, length: str) -> str:
    return f"coalesce(int4send({length}) || {as_bytes}, '\\xffffffff'::bytea)"


def _text(column: str) -> str:
    # textsend writes in the session's encoding, which is UTF-8: see infra.postgres.connect.
    return _counted(f"textsend({column})", f"octet_length(textsend({column}))")


LEAF_SQL = " || ".join(
    [
        FIXED_SQL,
        _counted("uuid_send(causation_id)", "16"),
        *map(_text, ("topic", "actor", "reason", "traceparent")),
        _counted("state", "octet_length(state)"),
    ]
)
"""The leaf of a row of ``log.events``, as an SQL expression of type bytea, for sessions whose
``client_encoding`` is UTF8."""
