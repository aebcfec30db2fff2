"""What was published stays as it was, and a new version reads what the old ones wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.contract.bodies import body_schema, schema_path
from infra.contract.compatibility import breaks
from tests.contract.kept import (
    CLASSES,
    GOLDEN,
    VERSIONS,
    closed,
    golden_file,
    golden_rows,
    schema,
    validator,
)
from tests.contract.made_up import allowed

UPCAST = [(topic, version) for topic, version in VERSIONS if (topic, version + 1) in VERSIONS]


@pytest.mark.parametrize(("topic", "version"), VERSIONS, ids=str)
def test_every_version_ever_written_is_kept(topic: str, version: int) -> None:
    assert schema(topic, version), f"{schema_path(topic, version)} can't be removed"
    rows = golden_rows(topic, version)
    assert rows, f"{golden_file(topic, version).name}: add a stored row of {topic} (decision 9)"
    for row in rows:
        assert (row["topic"], row["class_version"]) == (topic, version)


def test_no_event_type_was_removed() -> None:
    kept = {(file.parent.name, int(file.stem[1:])) for file in GOLDEN.glob("*/v*.json")}
    assert kept == set(VERSIONS)


@pytest.mark.parametrize("topic", CLASSES)
def test_a_published_schema_is_not_broken(topic: str) -> None:
    made = body_schema(CLASSES[topic])
    version = int(made["$id"].rpartition(":")[2])
    assert breaks(schema(topic, version), made) == []


def upcast(topic: str, version: int, body: dict[str, Any]) -> dict[str, Any]:
    """One step, from `version` to the next."""
    state: dict[str, Any] = json.loads(json.dumps(body))
    getattr(CLASSES[topic], f"upcast_v{version}_v{version + 1}")(state)
    return state


@pytest.mark.parametrize(("topic", "version"), UPCAST, ids=str)
@settings(max_examples=30)
@given(data=st.data())
def test_the_next_version_accepts_what_this_one_wrote(
    topic: str, version: int, data: st.DataObject
) -> None:
    old, new = schema(topic, version), validator(closed(schema(topic, version + 1)))
    new.validate(upcast(topic, version, data.draw(allowed(old, old))))
    for row in golden_rows(topic, version):
        new.validate(upcast(topic, version, json.loads(row["state"])))


# ---- the checker itself ----

TEXT, NUMBER, INTEGER = {"type": "string"}, {"type": "number"}, {"type": "integer"}
NULL = {"type": "null"}


def thing(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


def shared(properties: dict[str, Any], **definitions: Any) -> dict[str, Any]:
    return {**thing(**properties), "$defs": definitions}


LINK = {"$ref": "#/$defs/Part"}
COLOURS = {"enum": ["red", "green"]}


@pytest.mark.parametrize(
    ("published", "made"),
    [
        (thing(a=TEXT), thing(a=TEXT)),
        (thing(a=TEXT), thing(a={**TEXT, "description": "new words", "title": "A"})),
        (thing(("a",), a=TEXT), thing(("a",), a=TEXT, b=NUMBER)),
        (thing(a=COLOURS), thing(a={"enum": ["blue", "green", "red"]})),
        (thing(a=COLOURS), thing(a=TEXT)),
        (thing(a={"const": 1}), thing(a=INTEGER)),
        (thing(a=INTEGER), thing(a=NUMBER)),
        (thing(a=TEXT), thing(a={"anyOf": [NULL, TEXT]})),
        (thing(a=TEXT), thing(a={"type": ["string", "null"]})),
        (thing(a={"anyOf": [INTEGER, NULL]}), thing(a={"anyOf": [NUMBER, TEXT, NULL]})),
        (thing(a={**TEXT, "format": "uuid"}), thing(a=TEXT)),
        (thing(a={"type": "array", "items": COLOURS}), thing(a={"type": "array", "items": TEXT})),
        (shared({"a": LINK}, Part=thing(b=TEXT)), thing(a=thing(b=TEXT, c=TEXT))),
        (shared({"a": LINK}, Part=TEXT), shared({"a": {"$ref": "#/$defs/Other"}}, Other=TEXT)),
        (
            thing(a={"type": "object", "additionalProperties": TEXT}),
            thing(a={"type": "object", "additionalProperties": True}),
        ),
    ],
)
def test_what_only_grows_is_allowed(published: dict[str, Any], made: dict[str, Any]) -> None:
    assert breaks(published, made) == []


@pytest.mark.parametrize(
    ("published", "made", "said"),
    [
        (thing(a=TEXT, b=TEXT), thing(a=TEXT), "/properties/b: removed"),
        (thing(("a",), a=TEXT), thing(("b",), b=TEXT), "/properties/a: removed"),
        (thing(a=TEXT), thing(("a",), a=TEXT), "/properties/a: now required"),
        (thing(a=TEXT), thing(("b",), a=TEXT, b=TEXT), "/properties/b: now required"),
        (thing(("a",), a=TEXT), thing(a=TEXT), "/properties/a: no longer always there"),
        (thing(a=TEXT), thing(a=INTEGER), "/properties/a: was string, is integer"),
        (thing(a=NUMBER), thing(a=INTEGER), "/properties/a: was number, is integer"),
        (thing(a={}), thing(a=TEXT), "/properties/a: was anything, is string"),
        (thing(a=COLOURS), thing(a={"enum": ["red", "blue"]}), "'green' is no longer possible"),
        (thing(a=COLOURS), thing(a=INTEGER), "'red' is no longer possible"),
        (thing(a=TEXT), thing(a=COLOURS), "string is no longer possible"),
        (thing(a={"const": 1}), thing(a={"const": 2}), "/properties/a: was 1, is 2"),
        (thing(a={"anyOf": [TEXT, NULL]}), thing(a=TEXT), "null is no longer possible"),
        (thing(a=TEXT), thing(a={**TEXT, "format": "uuid"}), "/properties/a: format is new"),
        (thing(a={**TEXT, "pattern": "^a"}), thing(a={**TEXT, "pattern": "^b"}), "pattern is"),
        (thing(a=TEXT), thing(a={**TEXT, "maxLength": 5}), "/properties/a: maxLength is new"),
        (
            thing(a={"type": "array", "items": TEXT}),
            thing(a={"type": "array", "items": COLOURS}),
            "/properties/a/items: string is no longer possible",
        ),
        (
            thing(a={"type": "object", "additionalProperties": {"anyOf": [TEXT, NUMBER]}}),
            thing(a={"type": "object", "additionalProperties": TEXT}),
            "/properties/a/additionalProperties: number is no longer possible",
        ),
        (thing(a=TEXT), thing(a=TEXT) | {"additionalProperties": False}, "/additionalProperties"),
        (
            shared({"a": LINK}, Part=thing(b=TEXT)),
            shared({"a": LINK}, Part=thing(b=NUMBER)),
            "/properties/a/properties/b: was string, is number",
        ),
    ],
)
def test_what_breaks_a_reader_is_named(
    published: dict[str, Any], made: dict[str, Any], said: str
) -> None:
    assert said in "\n".join(breaks(published, made))
