"""Measurements of speed: ratios of versions that take turns in one run, never single timings."""
