"""The event log: an append-only table in commit order, and everything that writes or reads it."""
