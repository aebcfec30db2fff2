"""Values that a schema of the contract allows, and values that it must not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from tests.unit.infra.instances import texts, times

Schema = dict[str, Any]

_FORMATS: dict[str, st.SearchStrategy[str]] = {
    "uuid": st.uuids().map(str),
    "date": st.dates().map(str),
    "date-time": times.map(lambda time: time.isoformat()),
}
_TYPES: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "integer": st.integers(-(2**63), 2**63 - 1),
    "number": st.floats(allow_nan=False, allow_infinity=False),
    "string": texts,
}


def allowed(schema: Schema, root: Schema) -> st.SearchStrategy[Any]:
    """Values that `schema`, a part of `root`, allows."""
    schema = _resolved(schema, root)
    if "anyOf" in schema:
        return st.one_of([allowed(option, root) for option in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True)
    if "format" in schema:
        return _FORMATS[schema["format"]]
    if schema["type"] == "array":
        return st.lists(allowed(schema["items"], root), max_size=3)
    if schema["type"] != "object":
        return _TYPES[schema["type"]]
    if "additionalProperties" in schema:
        return st.dictionaries(texts, allowed(schema["additionalProperties"], root), max_size=3)
    properties = {name: allowed(part, root) for name, part in schema["properties"].items()}
    required = {name: properties.pop(name) for name in schema["required"]}
    return st.fixed_dictionaries(required, optional=properties)


def spoiled(value: Any, schema: Schema, root: Schema) -> Iterator[Any]:
    """The value with one thing wrong, in every way that is known here."""
    schema = _resolved(schema, root)
    yield [[]]
    if "anyOf" in schema:
        return
    yield None
    if "pattern" in schema or "format" in schema or "enum" in schema:
        yield "nonsense"
    if schema.get("type") == "string":
        yield 12.5
    if isinstance(value, list):
        for wrong in spoiled(value[0], schema["items"], root) if value else ():
            yield [wrong, *value[1:]]
    elif isinstance(value, dict):
        for name in schema.get("required", []):
            yield {other: part for other, part in value.items() if other != name}
        for name, part in schema.get("properties", {}).items():
            for wrong in spoiled(value[name], part, root) if name in value else ():
                yield {**value, name: wrong}


def _resolved(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema
