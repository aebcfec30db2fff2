"""Another master key takes the place of the present one, while everything goes on.

The new key is made beside the file, put in force in the vault (from then on no key is added under
the former), every key is wrapped anew in batches, the files change places, and the former master
key is destroyed. Whatever ends it early, the next run goes on: at no moment is there a key in the
vault that none of the files opens.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psycopg2

from infra.crashpoints import reach
from infra.durable import settle
from infra.master_keys import (
    KEY,
    MasterKey,
    beside,
    former_of,
    new_of,
    read_or_make_secret,
)
from infra.postgres import Pool
from infra.vault import WrongMasterKey

BATCH: Final = 1_000


def rotate(
    pool: Pool,
    path: Path,
    *,
    keep_former: bool = False,
    told: Callable[[int], None] = lambda _: None,
) -> int:
    """Rotates the master key in the file `path`, or ends a rotation that was begun.

    How many keys were wrapped anew. `told` hears how many so far. `keep_former` leaves the former
    master key in `<path>.former`: backups of before need it; the next run only destroys it. The
    pool acts as the vault's role. Raises `WrongMasterKey`, with nothing lost, where keys are
    wrapped with a master key that is not here; `OSError`, and what the driver raises.
    """
    new, former = new_of(path), former_of(path)
    _demand_ours(pool, path)
    if former.exists() and not new.exists():
        # Also where a backup of before was restored since: its keys are wrapped anew.
        present = MasterKey(path.read_bytes())
        _put_in_force(pool, present)
        count = _wrap_anew(pool, path, present, told)
        _destroy(former)
        return count
    master = MasterKey(read_or_make_secret(new))
    reach("keys.made")
    _put_in_force(pool, master)
    reach("keys.in_force")
    count = _wrap_anew(pool, path, master, told)
    reach("keys.wrapped")
    if not former.exists():
        os.link(path, former)
        settle(path.parent)
    reach("keys.former")
    os.replace(new, path)
    settle(path.parent)
    reach("keys.replaced")
    if not keep_former:
        _destroy(former)
    return count


def _demand_ours(pool: Pool, path: Path) -> None:
    """That the master key in force is one of those here: else the vault is another's."""
    here = {MasterKey(key).fingerprint for key in beside(path)}
    with pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT fingerprint FROM master")
        if any(row[0] not in here for row in cursor.fetchall()):
            raise WrongMasterKey(
                f"{path} is not the master key in force; copy it, and what lies beside it, from"
                " where the last rotation was run"
            )


def _put_in_force(pool: Pool, master: MasterKey) -> None:
    """From here on no key is added under another: what adds one holds a share lock on the row."""
    with pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO master (fingerprint) VALUES (%s) ON CONFLICT (one)"
            " DO UPDATE SET fingerprint = excluded.fingerprint, since = excluded.since"
            " WHERE master.fingerprint <> excluded.fingerprint",
            (master.fingerprint,),
        )


def _wrap_anew(pool: Pool, path: Path, master: MasterKey, told: Callable[[int], None]) -> int:
    """Every key under `master`, batch by batch, each committed."""
    count = 0
    while True:
        masters = [MasterKey(key) for key in beside(path)]
        with pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT subject, wrapped FROM keys WHERE wrapped IS NOT NULL"
                " AND master IS DISTINCT FROM %s ORDER BY subject LIMIT %s",
                (master.fingerprint, BATCH),
            )
            rows = cursor.fetchall()
            if not rows:
                return count
            subjects, before, after = [], [], []
            for subject, wrapped in rows:
                opened = (each.unwrap(subject, bytes(wrapped)) for each in masters)
                key = next((key for key in opened if key is not None), None)
                if key is None:
                    raise WrongMasterKey(
                        f"no master key beside {path} opens the key of {subject}: see crm doctor"
                    )
                subjects.append(subject)
                before.append(psycopg2.Binary(bytes(wrapped)))
                after.append(psycopg2.Binary(master.wrap(subject, key)))
            # Only where it is still what was read: one that was destroyed meanwhile stays so.
            cursor.execute(
                "UPDATE keys SET wrapped = anew.after, master = %s"
                " FROM unnest(%s::uuid[], %s::bytea[], %s::bytea[])"
                " AS anew (subject, before, after)"
                " WHERE keys.subject = anew.subject AND keys.wrapped = anew.before",
                (master.fingerprint, subjects, before, after),
            )
            count += cursor.rowcount
        reach("keys.batch")
        told(count)


def _destroy(former: Path) -> None:
    """Overwritten first, for what that is worth on the disks of today."""
    with former.open("r+b", buffering=0) as file:
        if os.fstat(file.fileno()).st_nlink == 1:
            file.write(os.urandom(KEY))
            os.fsync(file.fileno())
    former.unlink()
    settle(former.parent)
