"""Policies (process managers): events in, commands out, and timers for what time itself brings.

Pure: no clock and nothing read or written. A policy takes in the events of its topics one after the
other, in the order of the log; what it remembers of a key in between is a timer, and for some a
small state. Both are a fold of the log: any reader that goes through the same events comes to the
same ones.
"""
