"""How a process that serves the API is set up."""

import gc


def avoid_long_pauses() -> None:
    """To be called once, when everything is built.

    A full garbage collection walks all aggregates in memory and stops every request for 0.1 s and
    more. They hold no cycles and are freed without it, so full collections are made rare; the
    young generations, where cycles of requests die, are collected as always.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 1_000)
