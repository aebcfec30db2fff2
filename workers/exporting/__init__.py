"""``crm export``: everything that BI may read, as files."""

from workers.exporting.folder import InTheWay
from workers.exporting.run import FORMATS, UnknownTable, run_export

__all__ = ["FORMATS", "InTheWay", "UnknownTable", "run_export"]
