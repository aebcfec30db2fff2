"""Log lines: readable by machines, without a secret wherever it stood."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any, Literal
from uuid import uuid4

import pytest
import structlog
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from infra import tracing
from infra.logging import configure, without_secrets

SECRET = "hunter2hunter2"


@pytest.fixture(autouse=True)
def _former_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def _written(form: Literal["console", "json"] = "json", level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    configure(form, level, stream)
    return stream


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://crm:{SECRET}@db:5432/crm",
        f"postgresql://:{SECRET}@db/crm is not there",
        f"host=db password={SECRET} user=crm",
        f"host=db password = '{SECRET} more' user=crm",
        f"postgresql://db/crm?user=crm&password={SECRET}",
        f"Authorization: Bearer {SECRET}",
    ],
)
def test_secrets_in_text_are_blotted_out(text: str) -> None:
    assert SECRET in text
    assert SECRET not in without_secrets(text)


def test_other_text_stays() -> None:
    text = "crm listens on http://127.0.0.1:8000 and owns 10:30@noon"
    assert without_secrets(text) == text


@pytest.mark.parametrize("form", ["console", "json"])
def test_no_secret_in_any_part_of_a_line(form: Literal["console", "json"]) -> None:
    stream = _written(form)
    log = structlog.get_logger("test")
    url = f"postgresql://crm:{SECRET}@db/crm"
    log.info(
        f"connecting to {url}", url=url, token=SECRET, master_key=SECRET, error=ValueError(url)
    )
    logging.getLogger("library").warning("no answer from %s", url)
    try:
        raise ValueError(url)
    except ValueError:
        log.exception("failed")
    assert "Traceback" in stream.getvalue()
    assert SECRET not in stream.getvalue()


def test_a_line_says_what_when_and_who() -> None:
    stream = _written()
    structlog.get_logger("infra.x").info("applied", position=7)
    logging.getLogger("library").warning("late by %d s", 3)
    ours, theirs = _lines(stream)
    assert ours.pop("timestamp").endswith("Z")
    assert ours == {"event": "applied", "position": 7, "level": "info", "logger": "infra.x"}
    assert (theirs["event"], theirs["level"]) == ("late by 3 s", "warning")


def test_less_important_lines_are_left_out() -> None:
    stream = _written(level="warning")
    structlog.get_logger("test").info("chatter")
    structlog.get_logger("test").warning("trouble")
    assert [line["event"] for line in _lines(stream)] == ["trouble"]


def test_what_a_task_is_bound_to_is_on_all_its_lines() -> None:
    stream = _written()
    command = uuid4()
    with structlog.contextvars.bound_contextvars(command_id=command, worker="relay"):
        structlog.get_logger("ours").info("hello")
        logging.getLogger("theirs").warning("careful")
    structlog.get_logger("ours").info("over")
    *within, after = _lines(stream)
    for line in within:
        assert (line["command_id"], line["worker"]) == (str(command), "relay")
    assert "command_id" not in after


def test_ids_are_plain_on_the_console() -> None:
    stream = _written("console")
    command = uuid4()
    structlog.get_logger("ours").info("hello", command_id=command)
    assert f"command_id={command}" in stream.getvalue()


def test_lines_within_a_span_name_their_trace() -> None:
    stream = _written()
    tracing.configure(None, "crm-test", exporter=InMemorySpanExporter())
    try:
        with tracing.span("here"):
            structlog.get_logger("ours").info("hello")
            logging.getLogger("theirs").warning("careful")
            trace_id = tracing.trace_id()
        structlog.get_logger("ours").info("over")
    finally:
        tracing.close()
    *within, after = _lines(stream)
    assert [line["trace_id"] for line in within] == [trace_id, trace_id]
    assert "trace_id" not in after


def test_a_line_below_the_level_is_not_even_put_together() -> None:
    stream = _written(level="warning")

    class Costly:
        def __str__(self) -> str:
            raise AssertionError

    structlog.get_logger("ours").info("hello", what=Costly())
    assert stream.getvalue() == ""
