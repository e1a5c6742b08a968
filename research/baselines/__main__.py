"""``python -m research.baselines``: decoding beside Hugging Face, optimum-onnx, OpenVINO, CTranslate2, llama.cpp."""

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
            help="A virtual environment with CTranslate2 and optimum-onnx at their pinned versions. Default: one in "
            "the cache folder, made with pip on first use, as are those of OpenVINO and llama.cpp.",
            metavar="DIR",
        ),
    ] = None,
    quick: Quick = False,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Beside Hugging Face, optimum-onnx, OpenVINO, CTranslate2 and llama.cpp: same weights, token ids and lengths.

    All systems are measured in one run and take turns, one at work at a time; each baseline has its better number of
    threads. One client: the time of a token is that of 64 tokens less that of 8, so that reading the prompt does not
    count. Copied text: weights with a copying circuit, where speculation pays. 16 clients: our engine through a real
    Triton, CTranslate2 int8 with its best static batching of token ids, and with equal work: texts, in the order of
    arrival, through its own RoBERTa as well. What cannot be built or loaded here is left out, and it is said why.

    With an index of CPU builds of torch: TORCH_INDEX=https://download.pytorch.org/whl/cpu python -m research.baselines
    """
    with session():
        from research.baselines import batching, compare, plots
        from research.baselines import environment as others
        from research.baselines import report as tables

        config = compare.ComparisonConfig(
            shape, precision, threads or hardware.cores(), clients_precision=clients_precision
        )
        config = config.quick() if quick else config
        pythons = others.ready_all(environment, report.progress)
        pins = {
            f"{name}: {package}": version
            for name in others.REQUIREMENTS
            for package, version in others.pins(others.requirements(name)).items()
            if version
        }
        versions = hardware.versions("torch", "transformers") | pins
        result = report.heading("baselines", {**dataclasses.asdict(config), "weights": summary(shape)}, versions)
        chosen: dict[str, int] = {}
        left_out: dict[str, str] = {}
        scenarios = {}
        styles: dict[str, Style] = {"one_client": "lively", "copy_heavy": "copying"}
        for name, style in styles.items():
            report.progress(name)
            scenarios[name] = compare.one_client(style, config, chosen, left_out, pythons, report.progress)
        report.progress(f"{config.clients} clients")
        many = batching.many_clients(config, pythons, report.progress)
        result |= tables.result_json(scenarios, many, chosen, left_out)
        tables.show(result)
        finish(result, plots.baselines, plot, as_json)


if __name__ == "__main__":
    typer.run(baselines)
