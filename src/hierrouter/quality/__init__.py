"""Quality: how good a reply is, in [0, 1], by a named metric."""
