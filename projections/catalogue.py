"""All read models there are, by name."""

from __future__ import annotations

from domain.definitions import Definitions
from projections.attribution import AttributionProjection
from projections.customers import CustomersProjection
from projections.funnel import FunnelProjection
from projections.lifecycle import LifecycleProjection
from projections.projection import Projection


def projections(definitions: Definitions) -> dict[str, Projection]:
    """The read models under these definitions. One that depends on them has another id under
    others, so that what was filled under the former ones is filled anew."""
    return {
        projection.name: projection
        for projection in (
            CustomersProjection(),
            FunnelProjection(),
            LifecycleProjection(),
            AttributionProjection(definitions.attribution),
        )
    }


PROJECTIONS: dict[str, Projection] = projections(Definitions())
"""Under the definitions that are built in. Their names are those under any."""
