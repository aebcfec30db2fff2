"""The HTTP API: commands in, read models out."""
