"""The pipeline's components: each a thin wrapper of one function of hierrouter.stages."""
