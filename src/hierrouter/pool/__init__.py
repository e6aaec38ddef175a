"""The pool: model weights, prompts, and the backends that turn a prompt into a completion."""
