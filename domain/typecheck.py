"""Checks a dataclass instance against its annotations: compiled once per class, then cheap."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from domain.values import Personal, storable

Check = Callable[[Any], bool]

_compiled: dict[type, tuple[tuple[str, Check], ...]] = {}


def check_types(instance: object) -> None:
    """TypeError naming the first field whose value is not of its annotated type.

    Exact: bool is no int, datetime no date, a StrEnum no str. Decimals and floats must be finite,
    datetimes aware, texts free of U+0000 and lone surrogates. The message never holds the value.
    """
    cls = type(instance)
    checks = _compiled.get(cls)
    if checks is None:
        checks = _compiled[cls] = _fields(cls)
    values = vars(instance)
    for name, check in checks:
        if not check(values[name]):
            raise TypeError(
                f"{cls.__qualname__}.{name} can't hold this {type(values[name]).__name__}"
            )


def _fields(cls: type) -> tuple[tuple[str, Check], ...]:
    hints = get_type_hints(cls)
    return tuple((f.name, _check(hints[f.name])) for f in fields(cls))


def _check(hint: Any) -> Check:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _union([_check(arg) for arg in args], optional=NoneType in args)
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        each = _check(args[0])
        return lambda value: type(value) is tuple and all(map(each, value))
    if origin is dict:
        key, item = map(_check, args)
        return lambda value: (
            type(value) is dict and all(map(key, value)) and all(map(item, value.values()))
        )
    if hint in _EXACT:
        return _EXACT[hint]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return lambda value: type(value) is hint
    if isinstance(hint, type) and is_dataclass(hint):
        return _dataclass(hint)
    raise TypeError(f"{hint} can't be checked")


def _union(checks: list[Check], *, optional: bool) -> Check:
    if optional and len(checks) == 2:
        first, second = checks
        return lambda value: value is None or first(value) or second(value)
    return lambda value: any(check(value) for check in checks)


def _dataclass(cls: type) -> Check:
    checks = _fields(cls)

    def check(value: Any) -> bool:
        if type(value) is not cls:
            return False
        values = vars(value)
        return all(check(values[name]) for name, check in checks)

    return check


_EXACT: dict[Any, Check] = {
    NoneType: lambda value: value is None,
    bool: lambda value: type(value) is bool,
    int: lambda value: type(value) is int,
    float: lambda value: type(value) is float and math.isfinite(value),
    Decimal: lambda value: type(value) is Decimal and value.is_finite(),
    str: lambda value: type(value) is str and storable(value),
    UUID: lambda value: type(value) is UUID,
    date: lambda value: type(value) is date,
    datetime: lambda value: type(value) is datetime and value.utcoffset() is not None,
    Personal: lambda value: (
        type(value) is Personal and (value.text is None or storable(value.text))
    ),
}
