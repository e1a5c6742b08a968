"""``make demo``: export the embedded model, serve it on a real Triton, improve a few prompts, stop.

Shows before and after on stderr; the last line on stdout is one JSON object.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from neuro_latent_client import Client
from neuro_latent_serving.launch import FREE_PORTS, ServerConfig, TritonServer

PROGRAM = Path(sys.executable).with_name("neuro-latent")
REPOSITORY = Path("repositories/demo")
PROMPTS = (
    "Create a function",
    "write a poem about the sea",
    "explain photosynthesis to a child",
    "plan a 3 day trip to Rome",
    "email my boss about a day off",
    "make a workout plan",
    "summarize this article",
    "fix my python code",
    "name ideas for a coffee shop",
    "how do I learn guitar",
)
MAX_LENGTH = 96

console = Console(stderr=True)


def export() -> None:
    """Run ``neuro-latent export`` as a user would."""
    command = [str(PROGRAM), "export", "--adapter", "neuro-latent-mini", "--output", str(REPOSITORY)]
    console.print("$ " + " ".join(command), style="bold", highlight=False)
    subprocess.run(command, check=True)


def show(raw: str, enhanced: str, note: str) -> None:
    """Before and after, as one panel."""
    text = Text.assemble(("before  ", "dim"), raw, "\n", ("after   ", "dim"), enhanced)
    console.print(Panel(text, subtitle=note, subtitle_align="right"))


def optimize(client: Client, raw: str, transport: str) -> dict[str, Any]:
    """One prompt: over gRPC as a stream, over HTTP as a whole; ``ms`` is what the client waited."""
    note = transport
    if transport == "grpc-stream":
        with client.stream(raw, max_length=MAX_LENGTH) as stream:
            for _piece in stream:
                pass
        answer = stream.result
        note += f", first text after {answer.first_piece_ms or 0:.0f} ms"
    else:
        answer = client.optimize(raw, max_length=MAX_LENGTH)
    show(raw, answer.text, f"{note}, {answer.elapsed_ms:.0f} ms, {answer.generated_tokens} tokens")
    return {
        "raw_prompt": raw,
        "enhanced_prompt": answer.text,
        "transport": transport,
        "ms": round(answer.elapsed_ms, 1),
        "finish_reason": answer.finish_reason,
    }


def main() -> None:
    """The whole demonstration."""
    export()
    console.print("starting the Triton Inference Server …")
    with TritonServer(REPOSITORY, ServerConfig(ports=FREE_PORTS)) as server:
        console.print(f"Triton {server.version} was ready after {server.start_seconds:.1f} s", highlight=False)
        with Client(server.grpc_url) as grpc_client, Client(server.http_url) as http_client:
            results = [optimize(grpc_client, raw, "grpc-stream") for raw in PROMPTS]
            results += [optimize(http_client, raw, "http") for raw in PROMPTS]
            health = http_client.health()
        summary = {
            "server": {"name": "triton", "version": server.version, "ready": health.ready},
            "results": results,
        }
    console.print("the server has stopped; to serve it yourself:", highlight=False)
    console.print(f"  {PROGRAM} serve --repository {REPOSITORY}", highlight=False)
    console.print("then try it on the page: http://127.0.0.1:8080", highlight=False)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
