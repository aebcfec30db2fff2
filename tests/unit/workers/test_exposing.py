"""A worker's metrics are served where it is told, or it says why not."""

from __future__ import annotations

import socket

import pytest

from infra.metrics import WorkerMetrics
from infra.settings import load
from workers.exposing import expose
from workers.serving import CannotListen


def test_a_port_that_is_taken_is_told_with_its_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(CannotListen, match=f"port {port} .* in use.*CRM_METRICS_PORT"):
            expose(load({"CRM_METRICS_PORT": str(port)}), WorkerMetrics())


def test_without_a_port_none_are_served() -> None:
    expose(load({}), WorkerMetrics())
