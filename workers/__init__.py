"""The processes, and the command ``crm`` in which each of them is wired."""
