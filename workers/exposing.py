"""Where a worker's metrics can be scraped."""

from __future__ import annotations

from infra.metrics import WorkerMetrics
from infra.settings import Settings
from workers.serving import CannotListen


def expose(settings: Settings, metrics: WorkerMetrics) -> None:
    """Serves them on the port that is set, if one is, until they are closed.

    Raises ``CannotListen``.
    """
    if settings.metrics_port is None:
        return
    try:
        metrics.serve(settings.metrics_port, settings.host)
    except OSError as error:
        raise CannotListen(
            f"cannot listen on {settings.host} port {settings.metrics_port} for metrics:"
            f" {error.strerror or error}. CRM_METRICS_PORT chooses another port."
        ) from None
