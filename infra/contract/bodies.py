"""What the body of each event is, as JSON Schema: read off the structures that encode it."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import textwrap
import typing
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from itertools import pairwise
from types import NoneType, UnionType
from typing import Any, Final, TypeAlias, Union, get_args, get_origin, get_type_hints
from uuid import UUID

import msgspec

import domain
from domain.aggregate import LedgerAggregate
from domain.values import Personal
from infra.eventstore.transcoder import event_codec

Schema: TypeAlias = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_UUID: Final = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_PERSONAL: Final[Schema] = {
    "description": "Text about a natural person, encrypted: 1.<person>.<stream>:<version>.<field>."
    "<nonce and ciphertext>. Unreadable for ever once the person's key is destroyed.",
    "type": "string",
    "pattern": rf"^1\.{_UUID}\.{_UUID}:[0-9]+\.[a-z_]+\.[A-Za-z0-9_-]+$",
}
_PLAIN: Final[dict[Any, Schema]] = {
    NoneType: {"type": "null"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    Decimal: {
        "type": "string",
        "format": "decimal",
        "pattern": r"^-?[0-9]+(\.[0-9]+)?(E[+-][0-9]{1,9})?$",
    },
    UUID: {"type": "string", "format": "uuid"},
    date: {"type": "string", "format": "date"},
    datetime: {"type": "string", "format": "date-time"},
}


def event_classes() -> list[type[LedgerAggregate.Event]]:
    """Every event of every aggregate in the domain, in order of their topics."""
    for module in pkgutil.iter_modules(domain.__path__):
        importlib.import_module(f"{domain.__name__}.{module.name}")
    found = [
        member
        for aggregate in LedgerAggregate.__subclasses__()
        if aggregate.__module__.startswith(f"{domain.__name__}.")
        for member in vars(aggregate).values()
        if isinstance(member, type)
        and issubclass(member, LedgerAggregate.Event)
        and "TOPIC" in vars(member)
    ]
    return sorted(found, key=topic_of)


def topic_of(cls: type[LedgerAggregate.Event]) -> str:
    topic: str = vars(cls)["TOPIC"]
    return topic


def described(cls: type) -> str | None:
    """The class's own docstring on one line; none where Python made one up."""
    text = vars(cls).get("__doc__")
    if not text or text.startswith(f"{cls.__name__}("):
        return None
    return " ".join(text.split())


def dataschema(topic: str, class_version: int) -> str:
    """The name of a schema, as the header ce_dataschema has it."""
    return f"urn:crm-ledger:{topic}:{class_version}"


def schema_path(topic: str, class_version: int) -> str:
    """Where a schema lies, seen from the AsyncAPI document."""
    return f"schemas/{topic}/v{class_version}.json"


def body_schema(cls: type[LedgerAggregate.Event]) -> Schema:
    """The JSON Schema of the body, in the class's present version.

    A field that holds none is left out of the body, never null.
    """
    codec = event_codec(cls)
    hints, texts = get_type_hints(cls), _field_texts(cls)
    parts: dict[str, Schema] = {}
    fields = msgspec.structs.fields(codec.body)
    schema: Schema = {
        "$schema": DIALECT,
        "$id": dataschema(topic_of(cls), codec.version),
        "title": topic_of(cls),
        **_with_text(described(cls)),
        "type": "object",
        "properties": {
            field.name: _schema(_present(hints[field.name]), parts)
            | _with_text(texts.get(field.name))
            for field in fields
        },
        "required": [field.name for field in fields if field.required],
    }
    if parts:
        schema["$defs"] = dict(sorted(parts.items()))
    return schema


def _present(hint: Any) -> Any:
    """The annotation of a field that holds something."""
    if get_origin(hint) in (Union, UnionType):
        return Union[tuple(kind for kind in get_args(hint) if kind is not NoneType)]  # noqa: UP007
    return hint


def _schema(hint: Any, parts: dict[str, Schema]) -> Schema:
    """Of a value of an annotated type; classes go into `parts`, by their names."""
    origin, args = get_origin(hint), get_args(hint)
    if hint in _PLAIN:
        return dict(_PLAIN[hint])
    if origin in (Union, UnionType):
        return {"anyOf": [_schema(arg, parts) for arg in args]}
    if origin is tuple:
        return {"type": "array", "items": _schema(args[0], parts)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(args[1], parts)}
    name = hint.__name__
    if name not in parts:
        parts[name] = {}  # it may hold itself
        parts[name] = _part(hint, parts)
    return {"$ref": f"#/$defs/{name}"}


def _part(cls: type, parts: dict[str, Schema]) -> Schema:
    """A dataclass is written with all its fields, yet read without those that have defaults."""
    if cls is Personal:
        return _PERSONAL
    if issubclass(cls, Enum):
        return {**_with_text(described(cls)), "enum": [member.value for member in cls]}
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls.__qualname__} can't be described")
    hints, texts = get_type_hints(cls), _field_texts(cls)
    fields = dataclasses.fields(cls)
    return {
        **_with_text(described(cls)),
        "type": "object",
        "properties": {
            field.name: _schema(hints[field.name], parts) | _with_text(texts.get(field.name))
            for field in fields
        },
        "required": [
            field.name
            for field in fields
            if field.default is field.default_factory is dataclasses.MISSING
        ],
    }


def _with_text(text: str | None) -> Schema:
    return {"description": text} if text else {}


def _field_texts(cls: type) -> dict[str, str]:
    """The strings that stand below the fields in the class's source."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    return {
        field.target.id: " ".join(below.value.value.split())
        for field, below in pairwise(typing.cast(ast.ClassDef, tree).body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }
