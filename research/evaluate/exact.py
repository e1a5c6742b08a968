"""Does every answer begin with its prompt, byte for byte, over every interface?

``python -m research.evaluate.exact`` asks a running ``neuro-latent serve`` (default ports) 500 prompts, 300 of kinds
that the models have not seen and 200 odd ones, over gRPC, Triton's HTTP, a stream, REST and the command line.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from neuro_latent_client import Client
from neuro_latent_core.form import SEPARATOR
from research.pretrain.grammar import kinds

ODD = (
    "{0}   ", "{0}\n", "{0}\r\n\r\nThanks\r\n", "{0}\n\n", "\t{0}", "```\n{0}\n```",
    "{0}\n```python\nprint('a  b')\n```", "{0}\n\nKeep {{{{name}}}} and %s and ${{X}} and <Y>.",
    "{0} see https://example.org/a?b=c&d=%20e#f", "{0} $\\frac{{a}}{{b}}$",
    '{0} {{"a": [1, 2.50, null], "b": "c\\"d"}}',
    "{0} SELECT * FROM t WHERE a <> 'b';", "{0} </s> <unk> <extra_id_0> <mask>", "{0} \u200b\u200d\ufeffx",
    "{0} naïve façade — “quoted” … №", "{0} 日本語 и русский عربي", "{0} \U0001f469\u200d\U0001f467 e\u0301",
    "{0}\n" + "x" * 3000, "{0}\u2028{0}\u0085end", "{0}\x0bvertical\x0c",
)  # fmt: skip


def prompts() -> list[str]:
    """300 requests of held-out kinds, then 200 odd ones; the same on every machine."""
    rng = random.Random(41)
    unseen = [kind for kind in kinds() if kind.held_out]
    plain: list[str] = []
    while len(plain) < 300:
        kind = unseen[len(plain) % len(unseen)]
        plain.append(kind.request(rng, rng.choice(kind.forms)))
    return plain + [ODD[i % len(ODD)].format(plain[i].replace("{", "").replace("}", "")) for i in range(200)]


def over_rest(url: str, prompt: str) -> str:
    """The enhanced prompt, by the gateway."""
    body = json.dumps({"raw_prompt": prompt}).encode()
    request = urllib.request.Request(f"{url}/optimize", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return str(json.load(response)["enhanced_prompt"])


def over_command_line(asked: list[str]) -> dict[str, str]:
    """The texts of a batch file, by prompt."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
        source.write_text("".join(json.dumps({"raw_prompt": p}) + "\n" for p in asked), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "neuro_latent_core",
            "optimize",
            "--file",
            str(source),
            "--output",
            str(target),
        ]
        subprocess.run(command, check=True, capture_output=True)
        rows = [json.loads(line) for line in target.read_text(encoding="utf-8").split("\n") if line]
    return {row["raw_prompt"]: row["sequences"][0]["text"] for row in rows}


def main() -> None:
    """Ask, compare, print the counts as one JSON line; exit code 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grpc", default="grpc://127.0.0.1:8001")
    parser.add_argument("--http", default="http://127.0.0.1:8000")
    parser.add_argument("--rest", default="http://127.0.0.1:8080")
    options = parser.parse_args()
    asked = prompts()
    by_command = over_command_line(asked)
    faults: dict[str, list[int]] = {name: [] for name in ("grpc", "http", "stream", "rest", "command line", "differs")}
    added = 0
    with Client(options.grpc) as grpc, Client(options.http) as http:
        for number, prompt in enumerate(asked):
            with grpc.stream(prompt) as stream:
                streamed = "".join(piece.text for piece in stream)
            texts = {
                "grpc": grpc.optimize(prompt).text,
                "http": http.optimize(prompt).text,
                "stream": streamed,
                "rest": over_rest(options.rest, prompt),
                "command line": by_command[prompt],
            }
            added += texts["grpc"] != prompt
            for name, text in texts.items():
                if text != prompt and not text.startswith(prompt + SEPARATOR):
                    faults[name].append(number)
            if len(set(texts.values())) > 1:
                faults["differs"].append(number)
    counts = {name: len(numbers) for name, numbers in faults.items()}
    where = {name: numbers[:10] for name, numbers in faults.items() if numbers}
    print(json.dumps({"prompts": len(asked), "with_an_addition": added, "faults": counts, "where": where}))
    sys.exit(any(faults.values()))


if __name__ == "__main__":
    main()
