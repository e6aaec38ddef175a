"""Intervals and tests: how certain a number is."""
