"""Tracking: runs, artifacts and the registered router in MLflow."""
