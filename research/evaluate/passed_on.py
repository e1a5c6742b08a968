"""What the gateway's ``--upstream`` costs a request, and whether any is lost while Triton is killed.

An upstream that answers at once, ``neuro-latent serve --upstream`` in front of it, and the package ``openai``::

    python -m research.evaluate.passed_on --repository REPO [--requests 2000] [--kills 2]

First requests go to the upstream directly and through the gateway in turn, one at a time, of held-out prompts as people
type them; then ``--requests`` from eight threads while the Triton process is killed ``--kills`` times. The last line of
stdout is JSON.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
from fastapi import FastAPI, Request

from neuro_latent_core.command_line import program
from neuro_latent_serving.web.asgi import AsgiServer
from research.pretrain.rows import judged_pairs

PAIRS = 200
THREADS = 8


def upstream() -> AsgiServer:
    """A server of OpenAI's API that says nothing, at once."""
    app = FastAPI(openapi_url=None)
    choice = {"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> dict[str, Any]:
        await request.body()
        return {"id": "1", "object": "chat.completion", "created": 1, "model": "none", "choices": [choice]}

    return AsgiServer(app, "upstream", "127.0.0.1", 0)


def ask(client: openai.OpenAI, prompt: str) -> tuple[float, str]:
    """Milliseconds until the answer, and what the gateway says of the prompt."""
    began = time.perf_counter()
    messages: Any = [{"role": "user", "content": prompt}]
    answer = client.chat.completions.with_raw_response.create(model="none", messages=messages)
    assert answer.parse().choices[0].message.content == "Yes."
    return (time.perf_counter() - began) * 1000, answer.headers.get("x-neuro-latent", "")


def main() -> None:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=2)
    options = parser.parse_args()
    prompts = [row.raw for row in judged_pairs()[:PAIRS]]
    server = upstream()
    server.start()
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics", "gateway")]
    command = [*program(), "serve", "--repository", str(options.repository), *ports, "--json"]
    process = subprocess.Popen(
        [*command, "--upstream", f"{server.url}/v1"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        make = {"api_key": "none", "max_retries": 0, "timeout": 60}
        direct = openai.OpenAI(base_url=f"{server.url}/v1", **make)
        through = openai.OpenAI(base_url=f"{facts['gateway']}/v1", **make)
        for prompt in prompts[:10]:  # to warm up
            ask(direct, prompt), ask(through, prompt)
        times = [(ask(direct, prompt)[0], *ask(through, prompt)) for prompt in prompts]
        added_ms = sorted(there - here for here, there, _ in times)
        found: dict[str, Any] = {
            "added_ms": {
                "median": round(statistics.median(added_ms), 1),
                "p10": round(added_ms[len(added_ms) // 10], 1),
                "p90": round(added_ms[len(added_ms) * 9 // 10], 1),
            },
            "prompts": Counter(outcome for *_, outcome in times),
        }
        print(json.dumps(found), flush=True)
        found["killed"] = killed(through, prompts, process, facts, options.requests, options.kills)
        print(json.dumps(found))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        server.stop(lambda: True)


def killed(
    client: openai.OpenAI, prompts: list[str], process: "subprocess.Popen[str]", facts: Any, requests: int, kills: int
) -> dict[str, Any]:
    """How requests end while Triton is killed: what the gateway says of each, and the errors."""
    outcomes: Counter[str] = Counter()
    done, lock = 0, threading.Lock()

    def one(number: int) -> None:
        nonlocal done
        try:
            _, outcome = ask(client, prompts[number % len(prompts)])
        except openai.OpenAIError as error:
            outcome = f"error: {type(error).__name__}"
        with lock:
            outcomes[outcome] += 1
            done += 1

    def kill() -> None:
        pid = facts["pid"]
        for kill in range(kills):
            while done < requests * (kill + 1) // (kills + 1):
                time.sleep(0.01)
            os.kill(pid, signal.SIGKILL)
            assert process.stdout is not None
            pid = json.loads(process.stdout.readline())["pid"]  # when it is up again

    killer = threading.Thread(target=kill)
    killer.start()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, range(requests)))
    killer.join(120)
    failed = sum(count for outcome, count in outcomes.items() if outcome.startswith("error"))
    return {"requests": requests, "kills": kills, "failed": failed, "prompts": outcomes}


if __name__ == "__main__":
    main()
