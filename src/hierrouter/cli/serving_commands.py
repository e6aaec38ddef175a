"""Commands that use a trained router: serve, manifests, fetch, ask."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hierrouter.cli.options import ConfigFile, EndpointKeys, Out, Overrides, RouterUri
from hierrouter.interrupts import stopping
from hierrouter.progress import say

app = typer.Typer()


@app.command()
def serve(
    router: RouterUri,
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Its port; 0: any that is free.")
    ] = 8080,
    alpha: Annotated[
        float, typer.Option("--alpha", min=0, help="Alpha where a request names none.")
    ] = 0.1,
    endpoints: Annotated[
        list[str] | None,
        typer.Option(
            "--endpoint",
            metavar="NAME=URL",
            help="A server (…/v1) that answers for a model of the pool; for several, repeat it.",
        ),
    ] = None,
    endpoint_timeout: Annotated[
        float, typer.Option("--endpoint-timeout", min=0.1, help="Seconds for a reply of theirs.")
    ] = 300.0,
    endpoint_calls: Annotated[
        int,
        typer.Option("--endpoint-calls", min=1, max=1000, help="Calls at once to each of them."),
    ] = 32,
    endpoint_keys: EndpointKeys = None,
    api_keys: Annotated[
        Path | None,
        typer.Option("--api-keys", help="File with the keys that clients must send, one a line."),
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Listen to others without asking for a key.")
    ] = False,
    name: Annotated[
        str, typer.Option("--name", help="Its name in requests: letters, digits, . _ -")
    ] = "hierrouter",
    max_requests: Annotated[
        int, typer.Option("--max-requests", min=1, help="Queries at once; more get 429.")
    ] = 128,
    max_body_kb: Annotated[
        int, typer.Option("--max-body-kb", min=1, help="Longest request, in 1,000 bytes.")
    ] = 1000,
    grace: Annotated[
        int, typer.Option("--grace", min=0, help="Seconds for requests under way at the end.")
    ] = 60,
    playground: Annotated[
        bool, typer.Option("--playground/--no-playground", help="Serve the page /playground.")
    ] = True,
    log_texts: Annotated[
        bool, typer.Option("--log-texts", help="Log and trace questions and answers, too.")
    ] = False,
    trace_share: Annotated[
        float,
        typer.Option("--trace-share", min=0, max=1, help="Share of requests traced in MLflow."),
    ] = 0.0,
) -> None:
    """Serve a router with its pool behind KServe's and OpenAI's interfaces."""
    from hierrouter.cli.ask import router_folder
    from hierrouter.serving.serve import ServeSettings
    from hierrouter.serving.serve import serve as serve_router

    settings = ServeSettings(
        host=host,
        port=port,
        name=name,
        alpha=alpha,
        keys=api_keys,
        no_auth=no_auth,
        endpoints=tuple(endpoints or ()),
        endpoint_timeout_s=endpoint_timeout,
        endpoint_calls=endpoint_calls,
        endpoint_keys=tuple(endpoint_keys or ()),
        most_requests=max_requests,
        most_bytes=max_body_kb * 1000,
        grace_s=grace,
        playground=playground,
        log_texts=log_texts,
        trace_share=trace_share,
    )
    with stopping("stopped before the server was up"):
        serve_router(router_folder(router), settings)


@app.command()
def manifests(
    config: ConfigFile,
    out: Out,
    router: Annotated[
        str, typer.Option("--router", help="The registered version, models:/hierrouter/3.")
    ],
    mlflow_uri: Annotated[
        str, typer.Option("--mlflow-uri", help="Where it is registered, as pods reach it.")
    ],
    image: Annotated[
        str,
        typer.Option("--image", envvar="HIERROUTER_IMAGE", help="The project's image, by digest."),
    ],
    namespace: Annotated[
        str, typer.Option("--namespace", help="Namespace of the objects.")
    ] = "hierrouter",
    keys_secret: Annotated[
        str,
        typer.Option("--keys-secret", help="Secret with the clients' keys: HIERROUTER_API_KEYS."),
    ] = "hierrouter-api-keys",
    mlflow_secret: Annotated[
        str, typer.Option("--mlflow-secret", help="Secret with MLflow's credentials.")
    ] = "hierrouter-mlflow",
    store_secret: Annotated[
        str, typer.Option("--store-secret", help="Secret with the object store's credentials.")
    ] = "hierrouter-store",
    hugging_face_secret: Annotated[
        str, typer.Option("--hugging-face-secret", help="Secret with HF_TOKEN.")
    ] = "hierrouter-hugging-face",
    endpoint_secret: Annotated[
        str, typer.Option("--endpoint-secret", help="Secret with the keys of the pool's endpoints.")
    ] = "hierrouter-endpoints",
    pull_secrets: Annotated[
        list[str] | None, typer.Option("--pull-secret", help="Secret for pulling the image.")
    ] = None,
    accelerator: Annotated[
        str, typer.Option("--accelerator", help="What each model asks for, such as amd.com/gpu.")
    ] = "nvidia.com/gpu",
    accelerators: Annotated[
        int, typer.Option("--accelerators", min=0, help="How many; 0: models run on processors.")
    ] = 1,
    timeout: Annotated[
        int, typer.Option("--timeout", min=1, help="Seconds for a request; above all deadlines.")
    ] = 600,
    all_in_one: Annotated[
        bool, typer.Option("--all-in-one", help="One pod for router and models, on processors.")
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Write the KServe objects that serve a registered router and its pool."""
    from hierrouter.configfile import load_config
    from hierrouter.serving.manifest_settings import ManifestSettings
    from hierrouter.serving.manifests import write_manifests

    settings = ManifestSettings(
        router=router,
        mlflow_uri=mlflow_uri,
        image=image,
        namespace=namespace,
        keys_secret=keys_secret,
        mlflow_secret=mlflow_secret,
        store_secret=store_secret,
        hugging_face_secret=hugging_face_secret,
        endpoint_secret=endpoint_secret,
        pull_secrets=tuple(pull_secrets or ()),
        accelerator=accelerator,
        accelerators=accelerators,
        timeout_s=timeout,
        all_in_one=all_in_one,
    )
    write_manifests(load_config(config, overrides or []).pool, settings, out)


@app.command()
def fetch(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="models:/NAME@ALIAS or models:/NAME/VERSION.")
    ],
    dest: Annotated[
        Path, typer.Argument(metavar="DEST", help="Folder for it: new, empty or a router's.")
    ],
) -> None:
    """Copy a registered router from MLflow into a folder; none of its code is run."""
    from hierrouter.errors import ConfigError
    from hierrouter.tracking.resolve import SCHEME, fetch_router

    if not source.startswith(SCHEME):
        raise ConfigError(f"{source}: name models:/NAME@ALIAS or models:/NAME/VERSION")
    fetch_router(source, dest)
    say(f"router: {dest}")


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="What to answer.")],
    router: RouterUri,
    alpha: Annotated[
        float, typer.Option("--alpha", min=0, help="Quality given up for one cost unit saved.")
    ] = 0.1,
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", help="Most dollars of all calls; never exceeded.")
    ] = None,
    max_hops: Annotated[int | None, typer.Option("--max-hops", help="Most calls.")] = None,
    models: Annotated[
        str | None,
        typer.Option("--models", metavar="A,B", help="The only models that may be called."),
    ] = None,
    deadline_ms: Annotated[
        int | None,
        typer.Option(
            "--deadline-ms",
            help="Milliseconds until the whole answer has to be there; loading models counts.",
        ),
    ] = None,
    replies: Annotated[
        bool, typer.Option("--replies", help="Also print the other hops' replies.")
    ] = False,
    endpoint_keys: EndpointKeys = None,
) -> None:
    """Answer one question with a trained router, and show the path it took."""
    from hierrouter.cli.ask import ask_once

    named = [name.strip() for name in (models or "").split(",") if name.strip()]
    settings = {
        "alpha": alpha,
        "max_cost": max_cost,
        "max_hops": max_hops,
        "models": None if models is None else named,
        "deadline_ms": deadline_ms,
        "replies": replies,
    }
    with stopping("stopped before the answer was there"):
        ask_once(question, router, settings, endpoint_keys or ())
