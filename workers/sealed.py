"""What ``crm doctor`` says about the seal: is the log sealed, and is the seal whole at its edge?"""

from __future__ import annotations

from infra.postgres import Connection, connect
from infra.proof.notes import NotANote, parse
from infra.proof.stored import Stored
from infra.proof.tree import Growth, TilesIncomplete
from infra.settings import Settings
from workers.finding import LONG_SECONDS, Finding, lasting
from workers.wiring import Databases

_SUBJECT = "seal"


def sealed(settings: Settings, addresses: Databases) -> Finding:
    """How far the log is sealed. Looks at the newest checkpoint only: the rest is for
    ``crm verify``."""
    connection = connect(
        addresses.log, role="crm_reader", search_path=["log"], application_name="crm doctor"
    )
    try:
        return _finding(settings, connection)
    finally:
        connection.close()


def _finding(settings: Settings, connection: Connection) -> Finding:
    stored = Stored(connection)
    newest, head = stored.newest(), stored.head()
    size = 0 if newest is None else newest.size
    if newest is not None:
        try:
            damage = _damage(stored, newest.note, size, head)
        except (NotANote, TilesIncomplete) as error:
            damage = str(error)
        if damage is not None:
            return Finding(False, _SUBJECT, f"{damage}. Run crm verify, and see docs/audit.md")
    if size == head:
        text = f"sealed up to position {size:,}" if size else "nothing to seal yet"
        return Finding(True, _SUBJECT, text)
    waited = _waited(connection, size)
    text = f"sealed up to position {size:,} of {head:,}"
    if waited <= max(LONG_SECONDS, 5 * settings.seal_seconds):
        return Finding(True, _SUBJECT, text)
    return Finding(
        False,
        _SUBJECT,
        f"{text}, the next event has waited for {lasting(waited)}: run crm up or crm seal, or see"
        " its log",
    )


def _damage(stored: Stored, note: str, size: int, head: int) -> str | None:
    if size > head:
        return f"{size:,} events were sealed, the log ends at {head:,}"
    if Growth(size, stored.tile).root() != parse(note).checkpoint.root:
        return f"the stored tree does not have the root that was signed at size {size:,}"
    return None


def _waited(connection: Connection, size: int) -> float:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM clock_timestamp() - recorded_at)::float8 FROM events"
            " WHERE position > %s ORDER BY position LIMIT 1",
            [size],
        )
        row = cursor.fetchone()
    return 0.0 if row is None else float(row[0])
