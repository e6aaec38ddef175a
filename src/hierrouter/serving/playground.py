"""`/playground`: one self-contained page to ask the router and to see how it answers.

The page's parts are files beside this module; they are put together once, and the policy lets the
browser run and use exactly these parts, load nothing else, and talk to this server only.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

from fastapi import APIRouter, Response

PATH = "/playground"
PARTS = files("hierrouter.serving").joinpath("static")
SCRIPT = re.compile(r'<script src="([^"]+)"></script>')
STYLE = re.compile(r'<link rel="stylesheet" href="([^"]+)">')


def playground_router() -> APIRouter:
    """The route of the page."""
    page, headers = _assembled()
    router = APIRouter(tags=["Playground"])

    @router.api_route(PATH, methods=["GET", "HEAD"], include_in_schema=False)
    async def playground() -> Response:
        return Response(page, media_type="text/html", headers=headers)

    return router


def _assembled() -> tuple[bytes, dict[str, str]]:
    """The page with its parts in it, and what the browser is told beside it."""
    digests: dict[str, list[str]] = {"script": [], "style": []}

    def take(tag: str, name: str) -> str:
        text = _part(name)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        digests[tag].append(f"'sha256-{digest}'")
        return f"<{tag}>{text}</{tag}>"

    page = _part("playground.html")
    page = STYLE.sub(lambda found: take("style", found[1]), page)
    page = SCRIPT.sub(lambda found: take("script", found[1]), page)
    policy = (
        "default-src 'none'",
        f"script-src {' '.join(digests['script'])}",
        f"style-src {' '.join(digests['style'])}",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # No text becomes markup or code, not even by a mistake in the page.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    return page.encode(), {
        "content-security-policy": "; ".join(policy),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }


def _part(name: str) -> str:
    # Read as text: browsers hash line ends as \n, whatever a checkout made of them.
    return PARTS.joinpath(name).read_text(encoding="utf-8")
