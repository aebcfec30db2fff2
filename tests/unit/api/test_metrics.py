"""What the API tells Prometheus."""

from __future__ import annotations

from api.metrics import Metrics


def samples(metrics: Metrics) -> dict[str, float]:
    lines = metrics.text().decode().splitlines()
    found = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in found}


def test_the_log_s_end_is_told_once_it_is_known() -> None:
    metrics = Metrics()
    assert "log_position" not in samples(metrics)
    for head, sealed in ((0, 0), (7, 4)):
        metrics.observe_log(head, sealed, {"funnel": {0: head}}, {})
        told = samples(metrics)
        assert told["log_position"] == head
        assert told["seal_position"] == sealed
        assert told["seal_lag_events"] == head - sealed


def test_a_series_has_no_second_one_for_when_it_began() -> None:
    metrics = Metrics()
    metrics.answered("GET", "/v1/funnel", 200, 0.1)
    assert not [name for name in samples(metrics) if "_created" in name]
