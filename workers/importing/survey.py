"""The first reading of a file: what must be known of all of it before the first command."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np

from workers.importing.deals import Reader
from workers.importing.records import LineError, Table

TELL_EVERY: Final = 1_000


@dataclass(frozen=True, slots=True)
class Survey:
    """Of the lines that can be taken. Memory: accounts, owners, and 8 bytes for each line."""

    lines: int
    """Records of the file, those that cannot be taken included."""
    earliest: date | None
    """The earliest opening of a deal."""
    first_facts: dict[str, date | None]
    """The earliest opening of each account's deals; None if one of them says none."""
    owners: frozenset[str]
    repeated: frozenset[int]
    """Hashes of the ids that seem to stand in more than one line."""


def survey(table: Table, reader: Reader, tell: Callable[[int], None]) -> Survey:
    """Reads the whole table once; `tell` hears from time to time how many lines it is at."""
    lines = 0
    earliest: date | None = None
    first_facts: dict[str, date | None] = {}
    owners: set[str] = set()
    hashes = array("q")
    for record in table.records():
        lines += 1
        if lines % TELL_EVERY == 0:
            tell(lines)
        try:
            deal = reader.deal(record)
        except LineError:
            continue
        hashes.append(hash(deal.external_id.id))
        opened = deal.opened
        if opened is not None and (earliest is None or opened < earliest):
            earliest = opened
        if deal.owner is not None:
            owners.add(deal.owner)
        if deal.account is not None:
            known = first_facts.setdefault(deal.account, opened)
            if known is not None and (opened is None or opened < known):
                first_facts[deal.account] = opened
    found, counts = np.unique(np.frombuffer(hashes, dtype=np.int64), return_counts=True)
    repeated = frozenset(found[counts > 1].tolist())
    return Survey(lines, earliest, first_facts, frozenset(owners), repeated)
