"""One file per resource: its commands, as rows of a table, and its reads."""
