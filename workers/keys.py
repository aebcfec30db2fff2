"""``crm keys rotate``: another master key for the keys of personal data."""

from __future__ import annotations

from contextlib import ExitStack

from rich.console import Console

from infra.cluster import make_data_dir
from infra.master_keys import former_of, new_of, read_or_make_secret
from infra.postgres import Pool
from infra.rotation import rotate
from infra.settings import Settings
from infra.vault import WrongMasterKey, open_vault
from workers.progress import progress, terminal
from workers.wiring import databases


def prepare_rotation(settings: Settings) -> str:
    """Makes the next master key beside the present one, so that it can be copied to other machines
    before it is put in force; one that lies there stays. Gives what to do next."""
    path = settings.master_key_file
    new, former = new_of(path), former_of(path)
    if not path.exists():
        raise WrongMasterKey(f"{path} is not there: there is nothing to rotate yet")
    if former.exists():
        raise WrongMasterKey(f"{former} is still there: end the last rotation, by crm keys rotate")
    read_or_make_secret(new)
    return f"{new} is there: copy it beside {path.name} of every other machine, then rotate"


def rotate_keys(
    settings: Settings, *, keep_former: bool = False, console: Console | None = None
) -> str:
    """Rotates the master key; gives what was done. Raises `WrongMasterKey`, and what keeps the
    database or the files from being used."""
    console = console or terminal()
    path = settings.master_key_file
    make_data_dir(settings.data_dir)
    with ExitStack() as stack:
        addresses = stack.enter_context(databases(settings, administering=False))
        pool = stack.enter_context(
            Pool(
                addresses.keys,
                size=1,
                role="crm_vault",
                search_path=["vault"],
                application_name="crm keys",
                autocommit=True,
            )
        )
        open_vault(pool, path)  # the right master key, or none of this
        only_end = former_of(path).exists() and not new_of(path).exists()
        told = stack.enter_context(progress(console, "keys wrapped anew", None))
        try:
            count = rotate(pool, path, keep_former=keep_former, told=told)
        except OSError as error:
            raise WrongMasterKey(
                f"{error.filename or path} cannot be changed: {error.strerror}"
            ) from None
    if only_end:
        return "the former master key is destroyed; run again to rotate anew"
    left = f"; {former_of(path)} is kept, the next run destroys it" if keep_former else ""
    return f"{count:,} keys are wrapped with a new master key in {path}{left}"
