"""Quality against cost as curves, and what they are worth."""
