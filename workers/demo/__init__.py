"""``crm demo``: a made-up company, told through the command path."""

from workers.demo.run import DemoError, populate, run_demo

__all__ = ["DemoError", "populate", "run_demo"]
