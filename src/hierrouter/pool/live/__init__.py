"""The pool's models as they answer live: many callers at once, token by token, cancellable."""
