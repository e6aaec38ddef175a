"""The one image that all components run."""

import os

IMAGE = os.environ.get("HIERROUTER_IMAGE", "ghcr.io/hierrouter/hierrouter:0.1.0")
"""HIERROUTER_IMAGE, read when a component is imported, or the release's own."""
