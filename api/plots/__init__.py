"""Answers as pictures: PNG or SVG of what a read answers, drawn from the answer itself."""

from api.plots.pictures import Pictures

__all__ = ["Pictures"]
