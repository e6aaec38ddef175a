"""Serving: the router with its pool behind KServe's ModelServer, and one question on a screen."""
