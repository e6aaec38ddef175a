"""What each component of the pipeline calls: texts and paths in, plain values out.

A stage gets its own part of the config only, so that Kubeflow's cache knows what it depends on.
"""
