"""History for those who audit it: events as lines, states at any event or date, and causes.

Reads the log and nothing else, and no snapshots: they are no evidence.
"""
