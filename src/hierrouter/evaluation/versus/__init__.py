"""One router against another."""
