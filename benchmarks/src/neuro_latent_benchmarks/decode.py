"""``neuro-latent bench decode``: the decode engine alone, in one process, without Triton and without encoders."""

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuro_latent_benchmarks import report
from neuro_latent_benchmarks.pipeline import Flight, Floats, Pipeline, open_engine
from neuro_latent_benchmarks.prompts import prompt_texts
from neuro_latent_benchmarks.report import BenchError
from neuro_latent_benchmarks.statistics import Spread, significant
from neuro_latent_serving.engine import Engine
from neuro_latent_serving.engine.decoder_factory import DeviceName

Prompt = tuple[str, Floats]


@dataclass(frozen=True, slots=True)
class DecodeConfig:
    """What is measured.

    Attributes:
        rows: texts that are written together.
        input_tokens: widths of the encoder states.
        new_tokens: lengths of the texts.
        rounds: how often each is measured.
        threads: of ONNX Runtime; 0 takes every core.
        device: where the decoder runs.
    """

    rows: tuple[int, ...] = (1, 2, 4, 8, 16)
    input_tokens: tuple[int, ...] = (44, 128)
    new_tokens: tuple[int, ...] = (16, 64, 128)
    rounds: int = 5
    threads: int = 0
    device: DeviceName = "cpu"

    def quick(self) -> "DecodeConfig":
        """Enough to see that everything works."""
        return DecodeConfig((1, 4), (44,), (8, 24), 2, self.threads, self.device)


def prompts(repository: Path, count: int, input_tokens: int, threads: int) -> list[Prompt]:
    """Prompts with encoder states of exactly ``input_tokens`` tokens (soft prompts among them)."""
    texts = prompt_texts(4 * count + 40)
    with Pipeline(repository, threads=threads) as pipeline:
        found = []
        for start in range(count):
            text, states = "", None
            for part in itertools.islice(itertools.cycle(texts), start, start + len(texts)):
                text = f"{text} {part}".strip()
                states = pipeline.encode(text)
                if len(states) >= input_tokens:
                    break
            if states is None or len(states) < input_tokens:
                raise BenchError(f"--input-tokens {input_tokens}: the models read at most {len(states or [])}")
            found.append((text, states[:input_tokens]))
        return found


def run_cells(repository: Path, config: DecodeConfig) -> dict[str, Any]:
    """Measure every combination; with and without speculation in turns.

    Returns: ``cells`` (see :func:`measure`) and ``first_token_ms``: from request to first token of one text alone, by
    input width.
    """
    slots = max(config.rows)
    engines = {
        on: open_engine(
            repository, threads=config.threads, slots=slots, speculation=on, ends=False, device=config.device
        )
        for on in (False, True)
    }
    try:
        cells, first = [], {}
        for width in config.input_tokens:
            inputs = prompts(repository, slots, width, config.threads)
            first[str(width)] = first_token(engines[False], inputs, config.rounds).as_json()
            for rows, new_tokens in itertools.product(config.rows, config.new_tokens):
                report.progress(f"  {rows} rows, {width} input tokens, {new_tokens} new tokens")
                taken: dict[bool, list[dict[str, float]]] = {False: [], True: []}
                for number in range(config.rounds + 1):
                    for on, engine in engines.items():
                        point = measure(engine, inputs[:rows], new_tokens)
                        if number:  # the first turn warms up
                            taken[on].append(point)
                for on, points in taken.items():
                    cell = {"speculation": on, "rows": rows, "input_tokens": width, "new_tokens": new_tokens}
                    cells.append(cell | spreads(points))
        return {"first_token_ms": first, "cells": cells}
    finally:
        for engine in engines.values():
            engine.close()


def first_token(engine: Engine, inputs: list[Prompt], rounds: int) -> Spread:
    """Milliseconds from the request to its first token: prefill and one step."""
    times = [Flight(engine, states, text, 1).result().total_s * 1000 for text, states in inputs[:1] * (rounds + 1)]
    return Spread.of(times[1:])


def measure(engine: Engine, inputs: list[Prompt], new_tokens: int) -> dict[str, float]:
    """Write one text for each prompt, together.

    Returns:
        tokens_per_second: of all rows.
        step_ms: time a step, all of it.
        token_ms: time a token that each row waits.
        tokens_per_step: of a row; above 1 where drafts were right.
    """
    before = (engine.metrics.steps, engine.metrics.rows, engine.metrics.tokens)
    start = time.perf_counter()
    for flight in [Flight(engine, states, text, new_tokens) for text, states in inputs]:
        flight.result()
    seconds = time.perf_counter() - start
    after = (engine.metrics.steps, engine.metrics.rows, engine.metrics.tokens)
    steps, rows, tokens = (b - a for a, b in zip(before, after, strict=True))
    return {
        "tokens_per_second": len(inputs) * new_tokens / seconds,
        "step_ms": seconds / max(steps, 1) * 1000,
        "token_ms": seconds / new_tokens * 1000,
        "tokens_per_step": tokens / max(rows, 1),
    }


def spreads(points: list[dict[str, float]]) -> dict[str, Any]:
    """The spread of each measurement, and the median of the tokens a step."""
    found = {name: Spread.of([point[name] for point in points]) for name in points[0]}
    return {name: spread.as_json() for name, spread in found.items()} | {
        "tokens_per_step": significant(found["tokens_per_step"].median, 3)
    }


def show(result: Mapping[str, Any]) -> None:
    """The result as tables."""
    rows = [
        (
            f"{cell['rows']} × {cell['new_tokens']}, input {cell['input_tokens']}",
            "yes" if cell["speculation"] else "no",
            cell["tokens_per_second"]["median"],
            f"{cell['token_ms']['median']:.3f} ({cell['token_ms']['p10']:.3f}–{cell['token_ms']['p90']:.3f})",
            cell["step_ms"]["median"],
            cell["tokens_per_step"],
        )
        for cell in result["cells"]
    ]
    columns = ("texts × tokens", "speculation", "tokens/s", "ms per token (p10–p90)", "ms per step", "tokens per step")
    report.table("decode engine", columns, rows)
    first = result["first_token_ms"].items()
    widths = [(f"{width} input tokens", spread["median"], spread["p90"]) for width, spread in first]
    report.table("first token, ms", ("", "median", "p90"), widths)
