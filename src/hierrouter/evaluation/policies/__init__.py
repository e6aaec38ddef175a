"""What a router is held to: baselines, oracles, and routers trained for comparison."""
