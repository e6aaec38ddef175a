"""Evaluation: baselines, metrics with intervals, and the report."""
