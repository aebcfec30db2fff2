"""Log lines: for people at a terminal, JSON for machines, never with a secret in them."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Literal
from uuid import UUID

import structlog

from infra import tracing

HIDDEN = "…"

_SECRET_NAMES = re.compile(
    r"password|passwd|secret|token|authorization|cookie|api_?key|master_?key|private_?key", re.I
)
_URL_PASSWORD = re.compile(r"([a-z][a-z0-9+.-]*://[^\s:/@]*):[^\s@]*@", re.I)
_KEYWORD_PASSWORD = re.compile(r"\b(password\s*=\s*)('(?:[^'\\]|\\.)*'|\S+)", re.I)
_BEARER = re.compile(r"\b(bearer\s+)[A-Za-z0-9._~+/=-]+", re.I)


def without_secrets(text: str) -> str:
    """``text`` with the passwords in addresses and the bearer tokens blotted out."""
    text = _URL_PASSWORD.sub(rf"\1:{HIDDEN}@", text)
    text = _KEYWORD_PASSWORD.sub(rf"\1{HIDDEN}", text)
    return _BEARER.sub(rf"\1{HIDDEN}", text)


def configure(
    form: Literal["auto", "console", "json"] = "auto", level: str = "info", stream: Any = None
) -> None:
    """Sends the log lines of structlog and of the standard library to ``stream`` (stderr).

    Each bears what its task or thread is bound to (structlog's contextvars), as the command's ids,
    and its trace, where there is one.
    """
    stream = sys.stderr if stream is None else stream
    console = form == "console" or (form == "auto" and stream.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _name_trace,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        if console
        else structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.PositionalArgumentsFormatter()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _tidy,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.getLogger("uvicorn").setLevel(max(root.level, logging.WARNING))
    # Tells each try to reach a receiver of traces; that a batch was lost is enough.
    logging.getLogger("opentelemetry").setLevel(max(root.level, logging.ERROR))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _name_trace(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    trace = tracing.trace_id()
    if trace is not None:
        event["trace_id"] = trace
    return event


def _tidy(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if name != "token_file" and _SECRET_NAMES.search(name):
            event[name] = HIDDEN
        elif isinstance(value, str):
            event[name] = without_secrets(value)
        elif isinstance(value, BaseException):
            event[name] = without_secrets(str(value))
        elif isinstance(value, UUID):  # bound as such, since most are on no line
            event[name] = str(value)
    return event
