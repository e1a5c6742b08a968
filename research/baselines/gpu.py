"""The decode engine on one GPU beside PyTorch on the same card: ``python -m research.baselines.gpu --out DIR``.

T5-small at its true size with random weights, 44 encoder tokens, 64 new tokens, greedy. Parts, in this order:
``identity`` (the tokens of 64 prompts against the CPU's in float32), ``engine`` (time per token and tokens a second,
with and without captured CUDA graphs), ``profile`` (where a step's time goes), ``torch`` (Hugging Face's loop in eager
mode and with a compiled decoder), ``rtx`` (identity and times with TensorRT-RTX in TensorRT's place). ``--device cpu``
and ``--tiny`` try the script where there is no GPU.
"""

import argparse
import collections
import dataclasses
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from neuro_latent_export.decoder_nodes import Dialect
from neuro_latent_export.graphs import Sizes
from neuro_latent_export.move_graph import build_move
from neuro_latent_export.parity import DECODER_PATHS
from neuro_latent_export.precision import FP32
from neuro_latent_export.sixteen_bits import feed_forward_outputs, narrow_products
from neuro_latent_export.tensorrt.engines import build_engine
from neuro_latent_export.tensorrt.library import Library, gpu_capability
from neuro_latent_export.tensorrt.profiles import ROWS, profiles
from neuro_latent_serving.engine import Engine, EngineConfig
from neuro_latent_serving.engine import engine as engine_module
from neuro_latent_serving.engine import loop as loop_module
from neuro_latent_serving.engine.decoder_factory import DeviceName
from neuro_latent_serving.engine.device.device_decoder import DeviceDecoder
from neuro_latent_serving.engine.device.onnx import OnnxRuntime
from neuro_latent_serving.engine.host_decoder import HostDecoder

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


def decoder_graphs(t5: Any, precision: str, dialect: Dialect = "onnxruntime") -> Iterator[tuple[str, Any]]:
    """Name and graph of prefill and step, as an export writes them."""
    for name, build in (("prefill", build_prefill), ("step", build_step)):
        graph = build(t5, FP32, dialect)
        if precision == "fp16":
            narrow_products(graph, onnx_ir.DataType.FLOAT16, feed_forward_outputs(t5.config.d_ff, t5.config.d_model))
        if precision == "bf16":
            narrow_products(graph, onnx_ir.DataType.BFLOAT16)
        yield name, graph


def write_decoder(t5: Any, precision: str, folder: Path) -> Path:
    """The graphs of the decoder and a tokenizer whose text is the ids."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, graph in decoder_graphs(t5, precision):
        onnx_ir.save(graph, folder / f"{name}.onnx")
    onnx_ir.save(build_move(), folder / "move.onnx")
    write_tokenizer(t5, folder)
    return folder


def write_tokenizer(t5: Any, folder: Path) -> None:
    """One whose tokens are called by their ids."""
    names = {str(i): i for i in range(t5.config.vocab_size)}
    Tokenizer(WordLevel(names, unk_token="0")).save(str(folder / "generator_tokenizer.json"))


def write_engines(t5: Any, precision: str, folder: Path) -> Path:
    """The same as engines of TensorRT-RTX for the GPU at hand, which then stands in TensorRT's place."""
    trt = importlib.import_module("tensorrt_rtx_bindings")
    sys.modules["tensorrt"] = trt
    library = Library("TensorRT-RTX", trt.__version__, gpu_capability(), trt)
    folder.mkdir(parents=True, exist_ok=True)
    ranges = profiles(Sizes(768, t5.config.d_model, 20, 6, 8, 64, t5.config.vocab_size), 512)
    for (name, graph), path in zip(decoder_graphs(t5, precision, "tensorrt"), DECODER_PATHS, strict=True):
        file = folder / f"{name}.onnx"
        onnx_ir.save(graph, file)
        (folder / f"{name}.plan").write_bytes(build_engine(library, file, ranges[path]).plan)
    write_tokenizer(t5, folder)
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


@contextmanager
def host_times(engine: Engine) -> Iterator[dict[str, list[float]]]:
    """Seconds of every call that a step makes: ``write`` and ``read`` of tensors, ``run`` of the graph, ``step``."""
    decoder: Any = engine._decoder
    taken: dict[str, list[float]] = collections.defaultdict(list)

    def timed_call(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed_(*args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*args, **options)
            finally:
                taken[name].append(time.perf_counter() - started)

        return timed_

    array = type(next(iter(decoder._arrays.values())))
    kept = array.write, array.read
    array.write, array.read = timed_call("write", kept[0]), timed_call("read", kept[1])
    bindings = dict(decoder._bindings)
    for key, binding in bindings.items():
        decoder._bindings[key] = dataclasses.replace(binding, run=timed_call("run", binding.run))
    decoder.step = timed_call("step", decoder.step)
    try:
        yield taken
    finally:
        array.write, array.read = kept
        decoder._bindings.update(bindings)
        del decoder.step


def profile(engine: Engine, states: np.ndarray, rows: int, trace: Path) -> dict[str, Any]:
    """Where the time of a text goes: the host's calls, and the GPU's kernels by name, microseconds a step."""
    write(engine, states, rows)
    with host_times(engine) as taken:
        write(engine, states, rows)
    steps = len(taken["step"])
    host = {name: [len(found) / steps, 1e6 * sum(found) / steps] for name, found in taken.items()}
    activities = [torch.profiler.ProfilerActivity.CUDA] if torch.cuda.is_available() else None
    with torch.profiler.profile(activities=activities) as profiler:
        write(engine, states, rows)
    profiler.export_chrome_trace(str(trace))
    events = json.loads(trace.read_text())["traceEvents"]
    by_name: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
    for event in events:
        if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset", "cuda_runtime", "cuda_driver"):
            by_name[event["cat"], event["name"][:150]].append(event["dur"])
    device: list[Any] = [[*key, round(len(d) / steps, 2), round(sum(d) / steps, 2)] for key, d in by_name.items()]
    return {"steps": steps, "host": host, "device": sorted(device, key=lambda row: -row[3])[:60]}


def main() -> None:
    """Read the options and measure; every finding is one JSON line as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="cpu: the GPU's code over host memory")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", default="1,16,64,128")
    parser.add_argument("--prefill-tokens", type=int, default=loop_module.PREFILL_TOKENS)
    parser.add_argument("--parts", default="identity,engine,profile,torch")
    options = parser.parse_args()
    parts = options.parts.split(",")
    loop_module.PREFILL_TOKENS = options.prefill_tokens
    if options.device == "cpu":
        engine_module.create_decoder = lambda folder, threads, slots, device, graphs: (  # type: ignore[assignment]
            HostDecoder(folder, threads, slots)
            if device == "cpu"
            else DeviceDecoder(OnnxRuntime(folder, threads, "cpu", graphs), slots)
        )
    options.out.mkdir(parents=True, exist_ok=True)
    file = (options.out / "decode.jsonl").open("a")

    def note(**values: Any) -> None:
        line = json.dumps(values)
        print(line[:1500], flush=True)
        file.write(line + "\n")
        file.flush()

    @contextmanager
    def attempt(what: str) -> Iterator[None]:
        """Whatever fails is noted, and the rest goes on."""
        try:
            yield
        except Exception as error:
            note(failed=what, error=repr(error)[:600])

    import onnxruntime

    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    note(card=card, onnxruntime=onnxruntime.__version__, torch=torch.__version__)
    t5 = make_t5(options.tiny)
    work = Path(tempfile.gettempdir()) / "decode-bench"
    rng = np.random.default_rng(0)
    states = rng.standard_normal((64, ENCODER_TOKENS, t5.config.d_model)).astype(np.float32)
    rows = [int(n) for n in options.rows.split(",")]
    precision = "fp16" if options.device == "gpu" else "fp32"
    exact, fast = write_decoder(t5, "fp32", work / "fp32"), write_decoder(t5, precision, work / precision)
    wanted: list[str] = []

    def compare(name: str, folder: Path) -> None:
        """Texts of 64 prompts against the CPU's in float32."""
        if not wanted:
            with open_engine(exact, "cpu", 16) as engine:
                wanted.extend(write(engine, states, 64)[0])
        with open_engine(folder, "gpu", 16) as engine:
            found = write(engine, states, 64)[0]
        pairs = [(w.split(), f.split()) for w, f in zip(wanted, found, strict=True)]
        same = [[a == b for a, b in zip(w, f, strict=False)] for w, f in pairs]
        note(
            identity=name,
            same_texts=sum(map(all, same)),
            of=64,
            distinct=len(set(" ".join(wanted).split())),
            tokens_before_the_first_other=sum([*row, False].index(False) for row in same) / 64,
        )

    def measure(name: str, folder: Path, graphs: bool, counts: list[int]) -> None:
        with attempt(f"{name} graphs={graphs}"), open_engine(folder, "gpu", max(counts), graphs) as engine:
            for count in counts:
                note(system=name, graphs=graphs, rows=count, **timed(engine, states, count, options.rounds))

    if "identity" in parts:
        for name, folder in {"fp32": exact, precision: fast}.items():
            with attempt(f"identity {name}"):
                compare(name, folder)
    if "engine" in parts:
        for graphs in (True, False):
            measure(f"engine {precision}", fast, graphs, rows)
        for name in ("fp32", "bf16") if options.device == "gpu" else ("fp32",):
            measure(f"engine {name}", write_decoder(t5, name, work / name), True, rows)
    if "profile" in parts:
        for graphs in (True, False):
            for count in (rows[0], rows[-1]):
                with attempt(f"profile {graphs} {count}"), open_engine(fast, "gpu", count, graphs) as engine:
                    note(profile=precision, graphs=graphs, rows=count,
                         **profile(engine, states, count, work / f"trace-{graphs}-{count}.json"))  # fmt: skip
    if "torch" in parts and options.device == "gpu":
        half = t5.half().cuda()
        for compiled in (False, True):
            for count in rows if not compiled else rows[:1] + rows[-1:]:
                with attempt(f"torch compiled={compiled} {count}"):
                    note(system="torch", compiled=compiled, rows=count,
                         **timed_torch(half, states, count, 3, compiled))  # fmt: skip
        t5 = t5.float().cpu()
    if "rtx" in parts:
        for name in ("fp32", "fp16"):
            with attempt(f"rtx {name}"):
                started = time.perf_counter()
                folder = write_engines(t5, name, work / f"rtx-{name}")
                note(rtx=name, build_s=time.perf_counter() - started)
                compare(f"rtx {name}", folder)
                for graphs in (True, False):
                    measure(f"rtx {name}", folder, graphs, [count for count in rows if count <= ROWS])


if __name__ == "__main__":
    main()
