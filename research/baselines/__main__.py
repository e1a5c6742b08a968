"""``python -m research.baselines``: decoding beside Hugging Face eager, optimum-onnx and CTranslate2."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from neuro_latent_benchmarks import hardware, report
from neuro_latent_benchmarks.cli import Json, Plot, Quick, finish, session
from research.synthetic.shapes import ShapeName, Style, summary

Shape = Annotated[ShapeName, typer.Option(help="Models to measure: see research/synthetic/shapes.py.")]


def baselines(
    shape: Shape = "t5-small",
    precision: Annotated[str, typer.Option(help="Of our export: fp32, int8 or int4.")] = "int4",
    clients_precision: Annotated[str, typer.Option(help="Of our export for the 16 clients.")] = "int8",
    threads: Annotated[int, typer.Option(help="The most threads of every system; 0 takes every core.", min=0)] = 0,
    environment: Annotated[
        Path | None,
        typer.Option(
            help="A virtual environment with the other systems at their pinned versions. Default: one in the cache "
            "folder, made with pip on first use.",
            metavar="DIR",
        ),
    ] = None,
    quick: Quick = False,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Beside Hugging Face eager, optimum-onnx and CTranslate2 (float32, int8): same weights, token ids and lengths.

    All systems are measured in one run and take turns, one at work at a time; each baseline has its better number of
    threads. One client: the time of a token is that of 64 tokens less that of 8, so that reading the prompt does not
    count. Copied text: weights with a copying circuit, where speculation pays. 16 clients: our engine through a real
    Triton, CTranslate2 int8 with its best static batching.

    With an index of CPU builds of torch: TORCH_INDEX=https://download.pytorch.org/whl/cpu python -m research.baselines
    """
    with session():
        from research.baselines import batching, compare, plots
        from research.baselines import environment as others
        from research.baselines import report as tables
        from research.baselines.systems import CT2_INT8

        config = compare.ComparisonConfig(
            shape, precision, threads or hardware.cores(), clients_precision=clients_precision
        )
        config = config.quick() if quick else config
        python = others.ready(environment, report.progress)
        pins = {f"baseline {name}": version for name, version in others.pins(others.requirements()).items() if version}
        versions = hardware.versions("torch", "transformers") | pins
        result = report.heading("baselines", {**dataclasses.asdict(config), "weights": summary(shape)}, versions)
        chosen: dict[str, int] = {}
        scenarios = {}
        styles: dict[str, Style] = {"one_client": "lively", "copy_heavy": "copying"}
        for name, style in styles.items():
            report.progress(name)
            scenarios[name] = compare.one_client(style, config, chosen, python, report.progress)
        report.progress(f"{config.clients} clients")
        many = batching.many_clients(config, chosen[CT2_INT8], python, report.progress)
        result |= tables.result_json(scenarios, many, chosen)
        tables.show(result)
        finish(result, plots.baselines, plot, as_json)


if __name__ == "__main__":
    typer.run(baselines)
