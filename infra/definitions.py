"""The definitions in force: those built in, changed by a TOML file (``CRM_DEFINITIONS_FILE``)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, get_type_hints

from domain.definitions import BUILT_IN, Definitions, InvalidDefinition, Part, Shares
from infra.settings import PREFIX, SettingsError

_SETTING: Final = f"{PREFIX}DEFINITIONS_FILE"


def load(path: Path | None) -> Definitions:
    """What the file says, and what is built in where it says nothing; without a file just that.

    Raises ``SettingsError``, naming the key, for one that is unknown or has a wrong value.
    """
    if path is None:
        return BUILT_IN
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file, parse_float=Decimal)
    except OSError as error:
        raise _refused(f"cannot be read: {error.strerror or type(error).__name__}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise _refused("is not a TOML file") from None
    known = BUILT_IN.parts()
    _check_known(tables, known, "")
    return Definitions(**{name: _part(name, type(known[name]), tables[name]) for name in tables})


def _part(name: str, kind: type[Part], table: object) -> Any:
    if not isinstance(table, dict):
        raise _refused(f"{name} is a table, as [{name}]")
    hints = get_type_hints(kind)
    _check_known(table, {each.name for each in fields(kind)}, f"{name}.")
    given = {key: _value(f"{name}.{key}", hints[key], value) for key, value in table.items()}
    try:
        return kind(**given)
    except InvalidDefinition as error:
        raise _refused(f"{name}.{error}") from None


def _check_known(table: Mapping[str, object], known: Any, within: str) -> None:
    unknown = sorted(table.keys() - set(known))
    if unknown:
        raise _refused(f"there is no {within}{unknown[0]}")


def _value(key: str, kind: Any, value: object) -> Any:
    if kind is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise _refused(f"{key} is a whole number")
    if kind is Decimal:
        return _number(key, value)
    if kind == Shares:
        if isinstance(value, list):
            return tuple(_number(key, share) for share in value)
        raise _refused(f"{key} is a list of numbers")
    if isinstance(value, dict) and all(isinstance(text, str) for text in value.values()):
        return value
    raise _refused(f"{key} is a table of texts")


def _number(key: str, value: object) -> Decimal:
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    if isinstance(value, Decimal) and value.is_finite():
        return value
    raise _refused(f"{key} is a number")


def _refused(reason: str) -> SettingsError:
    return SettingsError(f"{_SETTING}: {reason}")
