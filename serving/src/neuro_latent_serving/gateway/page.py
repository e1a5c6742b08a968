"""What a browser shows: the page at / (one file that runs on its own), and the REST API's documentation at /docs."""

import base64
import hashlib
import re
from pathlib import Path

from fastapi import Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse

FILE = Path(__file__).with_name("page.html")
DOCS_FILES = "/static-offline-docs"

NOTHING_ELSE = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; {NOTHING_ELSE}",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every answer that says nothing else: it is what its type says, and no part of another page."""


async def page() -> HTMLResponse:
    """The page, with a policy that lets it run its own script and ask this server, and nothing else."""
    html = FILE.read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src {_hash(html, 'script')}; style-src {_hash(html, 'style')}; "
        f"connect-src 'self'; img-src data:; {NOTHING_ELSE}"
    )
    return HTMLResponse(html, headers={"Content-Security-Policy": policy, "Cache-Control": "no-cache"})


async def docs(request: Request) -> HTMLResponse:
    """Swagger UI, with a policy that lets it run its own files and ask this server; its styles are inline."""
    root, app = request.scope.get("root_path", ""), request.app
    answer = get_swagger_ui_html(
        openapi_url=f"{root}{app.openapi_url}",
        title=app.title,
        swagger_js_url=f"{root}{DOCS_FILES}/swagger-ui-bundle.js",
        swagger_css_url=f"{root}{DOCS_FILES}/swagger-ui.css",
        swagger_favicon_url=f"{root}{DOCS_FILES}/favicon.png",
    )
    answer.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src 'self' {_hash(bytes(answer.body).decode(), 'script')}; "
        f"style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src 'self' data:; {NOTHING_ELSE}"
    )
    return answer


def _hash(html: str, tag: str) -> str:
    """The source of the page's one inline ``<script>`` or ``<style>``, as a policy names it."""
    ((source,),) = [re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)]
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
