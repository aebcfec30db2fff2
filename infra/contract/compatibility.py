"""Whether a schema may take the place of one that was published under the same version."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from infra.contract.bodies import Schema

_SAY_NOTHING = frozenset({"$schema", "$id", "$defs", "$comment", "title", "description"})
_COMPARED = frozenset({"type", "properties", "required", "items", "additionalProperties", "const"})


def breaks(published: Schema, made: Schema) -> list[str]:
    """What `made` does to those who go by `published`, as "/properties/amount: …"; empty: nothing.

    Allowed are new optional properties, further values of an enumeration and further types. What
    was always there stays so, and what is there keeps its name.
    """
    return list(_compared(published, made, published, made, ""))


def _compared(old: Schema, new: Schema, olds: Schema, news: Schema, at: str) -> Iterator[str]:
    before, after = list(_alternatives(old, olds)), list(_alternatives(new, news))
    if len(before) == len(after) == 1:
        yield from _narrowed(before[0], after[0], olds, news, at)
        return
    for one in before:
        if all(any(_narrowed(one, other, olds, news, at)) for other in after):
            yield f"{at or '/'}: {_named(one)} is no longer possible"


def _alternatives(schema: Schema, root: Schema) -> Iterator[Schema]:
    """What a value may be: one schema each, without anyOf, enum and lists of types."""
    while "$ref" in schema:
        found: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    if "anyOf" in schema:
        for option in schema["anyOf"]:
            yield from _alternatives(option, root)
    elif "enum" in schema:
        yield from ({"const": value} for value in schema["enum"])
    elif isinstance(schema.get("type"), list):
        yield from ({**schema, "type": kind} for kind in schema["type"])
    else:
        yield schema


def _narrowed(old: Schema, new: Schema, olds: Schema, news: Schema, at: str) -> Iterator[str]:
    """What `old` allows and `new` does not; neither has alternatives."""
    if "const" in old and "const" not in new:
        wider = set(new) - _SAY_NOTHING <= {"type"} and _kind(old["const"]) == new.get("type")
        if not wider:
            yield f"{at or '/'}: {_named(old)} is no longer possible"
        return
    if old.get("const") != new.get("const"):
        yield f"{at or '/'}: was {_named(old)}, is {_named(new)}"
        return
    if "type" in new and new["type"] not in (old.get("type"), _wider(old)):
        yield f"{at or '/'}: was {_named(old)}, is {_named(new)}"
        return
    for keyword in sorted(new.keys() - _SAY_NOTHING - _COMPARED):
        if new[keyword] != old.get(keyword):
            yield f"{at or '/'}: {keyword} is new or another"
    yield from _properties(old, new, olds, news, at)
    for keyword in ("items", "additionalProperties"):
        if keyword in new:
            inner, further = _as_schema(old.get(keyword, {})), _as_schema(new[keyword])
            yield from _compared(inner, further, olds, news, f"{at}/{keyword}")


def _properties(old: Schema, new: Schema, olds: Schema, news: Schema, at: str) -> Iterator[str]:
    before, after = old.get("properties", {}), new.get("properties", {})
    for name, schema in before.items():
        if name in after:
            place = f"{at}/properties/{name}"
            yield from _compared(schema, after[name], olds, news, place)
        else:
            yield f"{at}/properties/{name}: removed"
    was, must = set(old.get("required", [])), set(new.get("required", []))
    yield from (f"{at}/properties/{name}: now required" for name in sorted(must - was))
    lost = sorted((was - must) & after.keys())
    yield from (f"{at}/properties/{name}: no longer always there" for name in lost)


def _as_schema(value: Schema | bool) -> Schema:
    if isinstance(value, bool):
        return {} if value else {"const": "nothing at all"}
    return value


def _wider(schema: Schema) -> str | None:
    return "number" if schema.get("type") == "integer" else None


def _kind(value: object) -> str | None:
    kinds = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
    return kinds.get(type(value))


def _named(schema: Schema) -> str:
    return repr(schema["const"]) if "const" in schema else str(schema.get("type", "anything"))
