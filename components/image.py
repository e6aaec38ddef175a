"""The one image that all components run."""

import os

LOCAL_IMAGE = "hierrouter:dev"
"""What `make image` builds."""
IMAGE = os.environ.get("HIERROUTER_IMAGE") or LOCAL_IMAGE
"""HIERROUTER_IMAGE, read when a component is imported, or the local one."""
