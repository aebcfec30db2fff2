"""Measurements, each as a ratio to something else done in the same run: `make bench`."""
