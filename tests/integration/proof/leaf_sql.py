"""The leaf as one SQL expression, column by column: another way to the same bytes."""

from __future__ import annotations

from infra.proof.leaves import LAYOUT


def _counted(as_bytes: str, length: str) -> str:
    return f"coalesce(int4send({length}) || {as_bytes}, '\\xffffffff'::bytea)"


def _text(column: str) -> str:
    # textsend writes in the session's encoding, which is UTF-8: see infra.postgres.connect.
    return _counted(f"textsend({column})", f"octet_length(textsend({column}))")


LEAF_SQL = " || ".join(
    [
        f"'\\x{LAYOUT:02x}'::bytea",
        "int8send(position)",
        "uuid_send(stream_id)",
        "int4send(version)",
        "int2send(class_version)",
        "uuid_send(partition_key)",
        "timestamptz_send(occurred_at)",
        "timestamptz_send(recorded_at)",
        "uuid_send(command_id)",
        "uuid_send(correlation_id)",
        _counted("uuid_send(causation_id)", "16"),
        _text("topic"),
        _text("actor"),
        _text("reason"),
        _text("traceparent"),
        _counted("state", "octet_length(state)"),
    ]
)
"""The leaf of a row of ``log.events``, as an SQL expression of type bytea, for sessions whose
``client_encoding`` is UTF8."""
