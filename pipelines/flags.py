"""The flags of what Kubeflow fixes when it compiles, for all commands that compile."""

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from components.image import LOCAL_IMAGE

from hierrouter.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.definition import Compiled

TAKEN = "compiled"
"""The argument that a command gets in place of the flags."""


def _compiled(
    image: Annotated[
        str | None, typer.Option("--image", help="Image of all components, best by digest.")
    ] = None,
    no_volumes: Annotated[
        bool,
        typer.Option("--no-volumes", help="Record into an object store (recordings=s3://…)."),
    ] = False,
    endpoint_keys: Annotated[
        list[str] | None,
        typer.Option(
            "--endpoint-key", metavar="VARIABLE", help="Key of the secret endpoint_secret."
        ),
    ] = None,
    ca_bundle: Annotated[
        bool,
        typer.Option("--ca-bundle", help="Trust ca.crt of the config map ca_bundle, no other."),
    ] = False,
    retries: Annotated[
        int, typer.Option("--retries", min=0, help="How often a task is tried again.")
    ] = 3,
    parallelism: Annotated[
        int, typer.Option("--parallelism", min=1, help="Most shards that record at the same time.")
    ] = 8,
    timeout_hours: Annotated[
        float,
        typer.Option("--timeout-hours", min=0, help="Limit of one try to record or train."),
    ] = 0,
    pull_secrets: Annotated[
        list[str] | None, typer.Option("--pull-secret", help="Secret for pulling the image.")
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Take nothing from earlier runs.")
    ] = False,
    deploy: Annotated[
        Literal["off", "write", "apply"],
        typer.Option("--deploy", help="Serve the registered router, where it is the champion."),
    ] = "off",
) -> "Compiled":
    from pipelines.definition import IMAGE, Compiled

    return Compiled(
        image=image or IMAGE,
        volumes=not no_volumes,
        endpoint_keys=tuple(endpoint_keys or ()),
        ca_bundle=ca_bundle,
        retries=retries,
        parallelism=parallelism,
        timeout_s=round(timeout_hours * 3600),
        pull_secrets=tuple(pull_secrets or ()),
        caching=not no_cache,
        deploy=deploy,
    )


def require_image(compiled: "Compiled") -> None:
    """Makes sure that the image is one that a cluster can pull.

    Raises:
        ConfigError: none was named.
    """
    if compiled.image == LOCAL_IMAGE:
        raise ConfigError(
            f"{LOCAL_IMAGE} is an image of this machine; push it (make image "
            "IMAGE=REGISTRY/hierrouter:0.1.0) and name it by --image or HIERROUTER_IMAGE"
        )


def with_compile_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command these flags; it takes them as one argument, `compiled`."""
    own = [each for each in _parameters(command) if each.name != TAKEN]
    flags = _parameters(_compiled)

    @functools.wraps(command)
    def flagged(**given: Any) -> None:
        settings = {each.name: given.pop(each.name) for each in flags}
        command(**given, **{TAKEN: _compiled(**settings)})

    flagged.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
    flagged.__annotations__ = {each.name: each.annotation for each in (*own, *flags)}
    return flagged


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """All by keyword, so that those without a default may stand behind others."""
    return [
        each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for each in inspect.signature(function).parameters.values()
    ]
