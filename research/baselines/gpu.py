"""The decode engine on one GPU beside PyTorch on the same card: ``python -m research.baselines.gpu --out DIR``.

T5-small at its true size with random weights, 44 encoder tokens, 64 new tokens, greedy. First the tokens of 64 prompts
against the CPU's in float32, then time per token and tokens a second in float16, with and without captured CUDA graphs,
then Hugging Face's loop in eager mode and with a compiled decoder, then where a step's time goes. ``--device cpu`` and
``--tiny`` try the script where there is no GPU.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import T5Config, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from neuro_latent_benchmarks.pipeline import NEVER, Flight
from neuro_latent_export.decoder_graphs import build_prefill, build_step
from neuro_latent_export.move_graph import build_move
from neuro_latent_export.precision import PRECISIONS
from neuro_latent_serving.engine import Engine, EngineConfig
from neuro_latent_serving.engine.decoder_factory import DeviceName

import onnx_ir  # isort: skip

ENCODER_TOKENS, NEW_TOKENS = 44, 64


def make_t5(tiny: bool) -> Any:
    """A T5 with random weights, lively enough that greedy texts do not repeat one token."""
    torch.manual_seed(0)
    config: Any = T5Config
    sizes = (
        {"d_model": 64, "d_ff": 128, "num_layers": 2, "num_heads": 2, "vocab_size": 600} if tiny else {"d_model": 512}
    )
    t5: Any = T5ForConditionalGeneration(config(**sizes, d_kv=64, decoder_start_token_id=0)).eval()
    with torch.no_grad():
        for name, parameter in t5.named_parameters():
            if "decoder" in name and parameter.ndim == 2:
                parameter.mul_(2.0)
    return t5


def write_decoder(t5: Any, precision: str, folder: Path) -> Path:
    """The graphs of the decoder and a tokenizer whose text is the ids."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, build in (("prefill", build_prefill), ("step", build_step)):
        onnx_ir.save(build(t5, PRECISIONS[precision]), folder / f"{name}.onnx")
    onnx_ir.save(build_move(), folder / "move.onnx")
    names = {str(i): i for i in range(t5.config.vocab_size)}
    Tokenizer(WordLevel(names, unk_token="0")).save(str(folder / "generator_tokenizer.json"))
    return folder


def open_engine(folder: Path, device: DeviceName, slots: int, graphs: bool = True) -> Engine:
    """An engine whose texts never end by themselves."""
    config = EngineConfig(
        decoder_start_id=0, eos_id=NEVER, slots=slots, queue=256, speculation=False, device=device, cuda_graphs=graphs
    )
    engine = Engine(folder, folder / "generator_tokenizer.json", config)
    engine.warm_up()
    return engine


def write(engine: Engine, states: np.ndarray, rows: int) -> tuple[list[str], float, float]:
    """Texts, seconds, and seconds to the first token of the first row."""
    started = time.perf_counter()
    done = [
        flight.result() for flight in [Flight(engine, states[i % len(states)], "", NEW_TOKENS) for i in range(rows)]
    ]
    return [d.text for d in done], time.perf_counter() - started, done[0].first_s


def timed(engine: Engine, states: np.ndarray, rows: int, rounds: int) -> dict[str, float]:
    """Medians over some rounds, after two to warm up."""
    taken = [write(engine, states, rows)[1:] for _ in range(rounds + 2)][2:]
    seconds = sorted(s for s, _ in taken)
    middle = seconds[len(seconds) // 2]
    return {
        "ms_a_token": 1000 * middle / NEW_TOKENS,
        "tokens_a_second": rows * NEW_TOKENS / middle,
        "first_token_ms": 1000 * sorted(f for _, f in taken)[len(taken) // 2],
        "least_s": seconds[0],
        "most_s": seconds[-1],
    }


def timed_torch(t5: Any, states: np.ndarray, rows: int, rounds: int, compiled: bool) -> dict[str, float]:
    """Hugging Face's generate in float16 on the GPU; ``compiled`` uses a static cache and torch.compile."""
    hidden = torch.from_numpy(np.stack([states[i % len(states)] for i in range(rows)])).to(t5.device, t5.dtype)
    options: dict[str, Any] = {"cache_implementation": "static"} if compiled else {}
    taken = []
    for _ in range(rounds + 2):
        torch.cuda.synchronize()
        started = time.perf_counter()
        t5.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
            attention_mask=torch.ones(hidden.shape[:2], dtype=torch.long, device=hidden.device),
            min_new_tokens=NEW_TOKENS, max_new_tokens=NEW_TOKENS, do_sample=False, **options,
        )  # fmt: skip
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    middle = sorted(taken[2:])[len(taken[2:]) // 2]
    return {"ms_a_token": 1000 * middle / NEW_TOKENS, "tokens_a_second": rows * NEW_TOKENS / middle}


def main() -> None:
    """Read the options and measure; every finding is one JSON line as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", default="1,16,64,128")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file = (options.out / "decode.jsonl").open("a")

    def note(**values: Any) -> None:
        line = json.dumps(values)
        print(line, flush=True)
        file.write(line + "\n")
        file.flush()

    import onnxruntime

    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    note(card=card, onnxruntime=onnxruntime.__version__, torch=torch.__version__)
    t5 = make_t5(options.tiny)
    work = Path("/tmp/decode-bench")
    rng = np.random.default_rng(0)
    states = rng.standard_normal((64, ENCODER_TOKENS, t5.config.d_model)).astype(np.float32)
    rows = [int(n) for n in options.rows.split(",")]
    precision = "fp16" if options.device == "gpu" else "fp32"
    exact, fast = write_decoder(t5, "fp32", work / "fp32"), write_decoder(t5, precision, work / precision)
    try:
        with open_engine(exact, "cpu", 16) as reference, open_engine(exact, options.device, 16) as engine:
            wanted, found = write(reference, states, 64)[0], write(engine, states, 64)[0]
        same = sum(a == b for a, b in zip(wanted, found, strict=True))
        distinct = len(set(" ".join(wanted).split()))
        note(same_tokens_as_cpu=same, of=64, distinct_tokens=distinct)
    except Exception as error:
        note(failed="identity", error=repr(error)[:400])
    for graphs in (True, False):
        try:
            with open_engine(fast, options.device, max(rows), graphs) as engine:
                for count in rows:
                    note(system="engine", precision=precision, graphs=graphs, rows=count,
                         **timed(engine, states, count, options.rounds))  # fmt: skip
        except Exception as error:
            note(failed="engine", graphs=graphs, error=repr(error)[:400])
    if options.device == "gpu":
        half = t5.half().cuda()
        for compiled in (False, True):
            for count in rows if not compiled else rows[:1] + rows[-1:]:
                try:
                    note(system="torch", compiled=compiled, rows=count,
                         **timed_torch(half, states, count, 3, compiled))  # fmt: skip
                except Exception as error:
                    note(failed="torch", compiled=compiled, rows=count, error=repr(error)[:300])
                    break


if __name__ == "__main__":
    main()
