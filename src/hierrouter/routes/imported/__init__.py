"""Outcomes that others recorded: from a file of scores and costs to a tree of direct answers."""
