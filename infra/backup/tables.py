"""What a backup is of, table by table. A test holds both lists against the schemas there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

EVENTS: Final = "log.events"

CARRIED: Final[Mapping[str, str]] = {
    EVENTS: "what happened: everything else follows from it, or belongs to it",
    "log.receipts": "a command sent again after a restore must get its first answer",
    "log.tracking": "moves in the transactions of events, so it must not fall behind them",
    "log.policy_position": "else policies would read the log again from its beginning",
    "log.policy_timer": "belongs to the policies' positions",
    "log.policy_state": "belongs to the policies' positions",
    "log.seal": "the log's identity, which a restore keeps",
    "log.seal_key": "which keys signed, and from when to when",
    "log.tile": "hashes of the events, which checkpoints stand on",
    "log.checkpoint": "what was signed and published cannot be signed again",
    "log.handouts": "what was handed out, and to whom: written down nowhere else",
    "vault.master": "the name of the master key in force, which the keys were wrapped with",
    "vault.keys": "without them personal text cannot be read; destroyed ones stay destroyed",
    "vault.erasures": "who was erased and why: written down nowhere else but in the ledger file",
}
"""Why each of these comes along. A table that this version does not have yet is no loss."""

MADE_ANEW: Final[Mapping[str, str]] = {
    "log.head": "made of the manifest, under another epoch: read models and the topic must notice",
    "log.relay": "lease and cursor are of the former log and its topic",
    "log.snapshots": "follow from the events",
    "log.migration": "written by the migrations, whose numbers stand in the manifest",
    "vault.migration": "written by the migrations, whose numbers stand in the manifest",
}
"""Why each of these does not."""

SCHEMAS: Final = ("log", "vault")


def in_vault(table: str) -> bool:
    """Whether it's in the vault, which may be another database."""
    return table.startswith("vault.")
