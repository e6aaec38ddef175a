"""The failures a user can cause or meet, each reported as one line without a traceback."""


class HierRouterError(Exception):
    """An expected failure. Its text names the culprit and the remedy in one line."""

    exit_code = 1
    unpaid = False
    """Of a call to a model: whether it is known to have cost nothing."""
    refused_with: int | None = None
    """Of a call to a server that was refused: the HTTP status."""


class ConfigError(HierRouterError):
    """A configuration or command line that cannot be used; nothing has been started."""

    exit_code = 2


class DamagedFileError(HierRouterError):
    """A file of ours that cannot be read back: truncated, altered or foreign."""


class UnreachableError(HierRouterError):
    """A service or source (hub, mirror, MLflow, a model) that does not answer; it may later."""

    def __init__(self, text: str, retry_after_s: float | None = None) -> None:
        """Takes the line, and after how many seconds to ask again, where that was said."""
        super().__init__(text)
        self.retry_after_s = retry_after_s


class RefusedError(HierRouterError):
    """Some calls were refused for what they ask; all others of the same batch were made."""


class BusyError(HierRouterError):
    """Another process writes where this one would; it can be waited for."""
