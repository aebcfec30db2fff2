"""A command's trace ends in the read models."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from infra import tracing
from projections.customers import CustomersProjection
from tests.integration.projections.conftest import Models
from tests.integration.projections.story import Story

pytestmark = pytest.mark.database

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize("traced", [True, False])
def test_a_batch_is_a_span_in_the_traces_of_its_events(models: Models, traced: bool) -> None:
    story = Story()
    for name in ("acme", "harbour", "works"):
        story.customer(name)
    for event in story.events[:2]:
        event.traceparent = f"00-{TRACE}-{SPAN}-01"
    exporter = InMemorySpanExporter()
    tracing.configure(None, "crm-test", exporter=exporter)
    try:
        projector = models.projector(CustomersProjection(), story, traced=traced)
        while projector.step():
            pass
    finally:
        tracing.close()
    found = [
        (span.name, f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}")
        for span in exporter.get_finished_spans()
        if span.parent is not None
    ]
    assert found == ([("project customers", TRACE, SPAN)] if traced else [])
