"""The page at /: one file that runs on its own."""

import base64
import hashlib
import re
from pathlib import Path

from fastapi.responses import HTMLResponse

FILE = Path(__file__).with_name("page.html")


async def page() -> HTMLResponse:
    """The page, with a policy that lets it run its own script and ask this server, and nothing else."""
    html = FILE.read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src {_hash(html, 'script')}; style-src {_hash(html, 'style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(html, headers={"Content-Security-Policy": policy, "Cache-Control": "no-cache"})


def _hash(html: str, tag: str) -> str:
    """The source of the page's one ``<script>`` or ``<style>``, as a policy names it."""
    ((source,),) = [re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)]
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
