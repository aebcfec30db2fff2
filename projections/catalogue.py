"""All read models there are, by name."""

from __future__ import annotations

from projections.attribution import AttributionProjection
from projections.customers import CustomersProjection
from projections.funnel import FunnelProjection
from projections.lifecycle import LifecycleProjection
from projections.projection import Projection

PROJECTIONS: dict[str, Projection] = {
    projection.name: projection
    for projection in (
        CustomersProjection(),
        FunnelProjection(),
        LifecycleProjection(),
        AttributionProjection(),
    )
}
