"""Learning: the environment over a route tree, PPO, and the router artifact."""
