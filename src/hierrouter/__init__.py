"""HierRouter: coordinated routing of small language models, learned with PPO."""

from importlib.metadata import version

__version__ = version("hierrouter")
