"""Filling a read model anew, from the log, beside the live one; then taking its place at once."""

from projections.rebuild.comparing import Compared
from projections.rebuild.filling import FillingFailed, WholeLog, fill
from projections.rebuild.rebuilding import Fillers, Gentle, NothingToCompare, Rebuild, Rebuilt
from projections.rebuild.sets import (
    RebuildRunning,
    clean,
    former_schema,
    shadow_schema,
    unfinished_size,
)
from projections.rebuild.swapping import (
    Former,
    NoWayBack,
    ReadersInTheWay,
    back,
    forget,
    former,
)

__all__ = [
    "Compared",
    "Fillers",
    "FillingFailed",
    "Former",
    "Gentle",
    "NoWayBack",
    "NothingToCompare",
    "ReadersInTheWay",
    "Rebuild",
    "RebuildRunning",
    "Rebuilt",
    "WholeLog",
    "back",
    "clean",
    "fill",
    "forget",
    "former",
    "former_schema",
    "shadow_schema",
    "unfinished_size",
]
