"""``crm import``: deals from the CSV export of another CRM, through the command path."""

from workers.importing.run import run_import

__all__ = ["run_import"]
