"""``crm import``: what another system has exported, through the command path.

Deals of another CRM, orders of a shop, responses to campaigns: files of lines, each of which
becomes commands with keys that are computed from it, so that a file can be given again.
"""

from workers.importing.fact_run import run_orders, run_responses
from workers.importing.run import run_import

__all__ = ["run_import", "run_orders", "run_responses"]
