"""``neuro-latent bench``."""

import dataclasses
import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from neuro_latent_benchmarks import report
from neuro_latent_benchmarks.report import BenchError

if TYPE_CHECKING:
    from neuro_latent_benchmarks.shapes import Style

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Measure latency and throughput on this machine: the decode engine alone, a real Triton, and other systems on "
    "the same weights. Tables on stderr, one JSON line on stdout with --json. Keep the machine idle meanwhile.",
)

Repository = Annotated[
    Path | None, typer.Option(help="An exported repository, as for `neuro-latent serve`.", metavar="REPO")
]
Shape = Annotated[
    str | None,
    typer.Option(
        help="Instead of a repository: t5-small (RoBERTa-base and T5-small at true size, random weights), embedded "
        "(the trained pair), tiny. Made and exported on first use, then kept in the cache folder.",
        metavar="t5-small|embedded|tiny",
    ),
]
Precision = Annotated[str, typer.Option(help="Of the export of a --shape: fp32, int8 or int4.")]
Threads = Annotated[int, typer.Option(help="Threads of ONNX Runtime; 0 takes every core.", min=0)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON line, last on stdout.")]
Plot = Annotated[Path | None, typer.Option(help="Write pictures (PNG) to this folder.", metavar="DIR")]
Quick = Annotated[bool, typer.Option("--quick", help="Few repetitions: shows that it works, too few to compare.")]


@app.command()
def decode(
    repository: Repository = None,
    shape: Shape = None,
    precision: Precision = "int4",
    copying: Annotated[
        bool, typer.Option("--copying", help="Random weights that copy their prompt, where speculation pays.")
    ] = False,
    rows: Annotated[str, typer.Option(help="Texts that are written together.")] = "1,2,4,8,16",
    input_tokens: Annotated[str, typer.Option(help="Encoder tokens, soft prompts among them.")] = "44,128",
    new_tokens: Annotated[str, typer.Option(help="Lengths of the texts.")] = "16,64,128",
    rounds: Annotated[int, typer.Option(help="Repetitions of each measurement.", min=1)] = 5,
    threads: Threads = 0,
    device: Annotated[Literal["cpu", "gpu"], typer.Option(help="Where the decoder runs.")] = "cpu",
    quick: Quick = False,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """The decode engine alone: time per step and token by rows, input and length, with and without speculation.

    Texts never end by themselves here, so that each has the length that is measured.

      neuro-latent bench decode --repository repository

      neuro-latent bench decode --shape t5-small --precision int4 --rows 1,16 --plot plots --json
    """
    with _session():
        from neuro_latent_benchmarks import decode as benchmark
        from neuro_latent_benchmarks import plots

        config = benchmark.DecodeConfig(
            _numbers("--rows", rows),
            _numbers("--input-tokens", input_tokens),
            _numbers("--new-tokens", new_tokens),
            rounds,
            threads,
            device,
        )
        config = config.quick() if quick else config
        folder, which = _repository(repository, shape, precision, copying)
        result = report.heading("decode", {**which, **dataclasses.asdict(config)})
        result |= benchmark.run_cells(folder, config, report.progress)
        _show_decode(result)
        _finish(result, plots.decode, plot, as_json)


@app.command()
def serve(
    repository: Repository = None,
    shape: Shape = None,
    precision: Precision = "int4",
    concurrency: Annotated[str, typer.Option(help="Clients of the closed loops.")] = "1,2,4,8,16,32",
    loads: Annotated[
        str, typer.Option(help="Arrival rates of the open loops, in percent of the most requests a second.")
    ] = "50,80",
    max_length: Annotated[int, typer.Option(help="Tokens that a request asks for.", min=1, max=512)] = 64,
    seconds: Annotated[float, typer.Option(help="Of each loop.", min=0.5)] = 10.0,
    quick: Quick = False,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """A real Triton over gRPC: latency, first text, throughput, in closed and open loops, and what Triton adds.

    Closed loop: N clients, each asks again when it has its answer. Open loop: requests arrive at random (Poisson) at a
    stated rate, and their time counts from when they were due. The load is made on this machine, too.

      neuro-latent bench serve --repository repository --plot plots

      neuro-latent bench serve --shape embedded --concurrency 1,16 --max-length 128 --json
    """
    with _session():
        from neuro_latent_benchmarks import plots
        from neuro_latent_benchmarks import serve as benchmark

        config = benchmark.ServeConfig(
            concurrency=_numbers("--concurrency", concurrency),
            loads=tuple(percent / 100 for percent in _numbers("--loads", loads)),
            max_length=max_length,
            seconds=seconds,
        )
        config = config.quick() if quick else config
        folder, which = _repository(repository, shape, precision, copying=False)
        result = report.heading("serve", {**which, **dataclasses.asdict(config)})
        result |= benchmark.run_server(folder, config, report.progress)
        _show_serve(result)
        _finish(result, plots.serve, plot, as_json)


@app.command()
def peers(
    shape: Annotated[
        str,
        typer.Option(help="t5-small, embedded or tiny: see `bench decode --help`.", metavar="t5-small|embedded|tiny"),
    ] = "t5-small",
    precision: Precision = "int4",
    clients_precision: Annotated[str, typer.Option(help="Of our export for the 16 clients.")] = "int8",
    threads: Annotated[int, typer.Option(help="The most threads of every system; 0 takes every core.", min=0)] = 0,
    peers_env: Annotated[
        Path | None,
        typer.Option(
            envvar="NEURO_LATENT_PEERS",
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

    All systems are measured in one run and take turns, one at work at a time; each peer has its better number of
    threads. One client: the time of a token is that of 64 tokens less that of 8, so that reading the prompt does not
    count. Copied text: weights with a copying circuit, where speculation pays. 16 clients: our engine through a real
    Triton, CTranslate2 int8 with its best static batching.

      neuro-latent bench peers --shape t5-small --precision int4 --plot plots

      neuro-latent bench peers --shape embedded --json

    With an index of CPU builds of torch: TORCH_INDEX=https://download.pytorch.org/whl/cpu neuro-latent bench peers
    """
    with _session():
        from neuro_latent_benchmarks import hardware, plots
        from neuro_latent_benchmarks.peers import batching, compare, environment
        from neuro_latent_benchmarks.peers import report as tables
        from neuro_latent_benchmarks.peers.systems import CT2_INT8

        _check_shape(shape)
        config = compare.PeersConfig(shape, precision, threads or hardware.cores(), clients_precision=clients_precision)
        config = config.quick() if quick else config
        python = environment.ready(peers_env, report.progress)
        pins = {
            f"peer {name}": version for name, version in environment.pins(environment.requirements()).items() if version
        }
        result = report.heading("peers", {**dataclasses.asdict(config), "weights": _weights(shape)}, pins)
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
        _finish(result, plots.peers, plot, as_json)


@app.command()
def training(
    shape: Annotated[
        str,
        typer.Option(help="t5-small, embedded or tiny: see `bench decode --help`.", metavar="t5-small|embedded|tiny"),
    ] = "embedded",
    data: Annotated[
        Path | None, typer.Option(help="Records to train on; the sample data without it.", metavar="FILE", exists=True)
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Records a step.", min=1)] = 32,
    rounds: Annotated[int, typer.Option(help="Repetitions of each measurement.", min=1)] = 5,
    quick: Quick = False,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Records a second of adapter training, beside PEFT's prompt tuning of the same T5 on the same records.

    The adapter's steps are those of phase 2, with all losses. PEFT gets shuffled batches, as a trainer makes them by
    default, and in another turn our batches of records of similar length. The frozen encoder's embeddings are cached
    before the clock starts: a training run computes them once.

      neuro-latent bench training --shape t5-small --json
    """
    with _session():
        from neuro_latent_benchmarks import plots, shapes
        from neuro_latent_benchmarks import training as benchmark

        _check_shape(shape)
        config = benchmark.TrainingConfig(batch_size=batch_size, rounds=rounds, data=data)
        config = config.quick() if quick else config
        models = shapes.prepare(shape, "lively", report.progress)
        result = report.heading("training", {"shape": shape, "weights": _weights(shape), **benchmark.settings(config)})
        result |= benchmark.run_training(models, config, report.progress)
        rows = [
            (name, *(spread[key] for key in ("median", "p10", "p90")), result["times_as_fast"].get(name, 1.0))
            for name, spread in result["records_per_second"].items()
        ]
        report.table("training", ("", "records/s", "p10", "p90", "the adapter is … times as fast"), rows)
        _finish(result, plots.training, plot, as_json)


@app.command("perf-analyzer")
def perf_analyzer(
    repository: Repository = None,
    url: Annotated[
        str | None, typer.Option(help="Instead of a repository: a server that runs, grpc://HOST:PORT.", metavar="URL")
    ] = None,
    concurrency: Annotated[str, typer.Option(help="Clients at a time.")] = "1,2,4,8,16",
    max_length: Annotated[int, typer.Option(help="Tokens that a request asks for.", min=1, max=512)] = 64,
    requests: Annotated[int, typer.Option(help="Requests of a measuring window; there are at least 3.", min=1)] = 100,
    program: Annotated[
        Path | None,
        typer.Option(
            help="The perf_analyzer to run. Default: that on PATH, else one from an old wheel, kept.", metavar="FILE"
        ),
    ] = None,
    write_input: Annotated[
        Path | None, typer.Option(help="Only write its input, for runs of your own and Model Analyzer.", metavar="FILE")
    ] = None,
    quick: Quick = False,
    as_json: Json = False,
) -> None:
    """Both ensembles under NVIDIA's perf_analyzer: a load that this project did not write.

    neuro-latent bench perf-analyzer --repository repository

    neuro-latent bench perf-analyzer --url grpc://gpu-host:8001 --concurrency 1,16,64 --json
    """
    with _session():
        from neuro_latent_benchmarks import perf_analyzer as benchmark
        from neuro_latent_client._endpoint import parse_url
        from neuro_latent_serving.server import FREE_PORTS, ServerConfig, TritonServer
        from neuro_latent_serving.server.repository import check_repository

        if write_input is not None:
            write_input.write_text(json.dumps(benchmark.input_data(max_length)), encoding="utf-8")
            return
        if (repository is None) == (url is None):
            raise typer.BadParameter("give either --repository REPO or --url grpc://HOST:PORT")
        config = benchmark.LoadConfig(_numbers("--concurrency", concurrency), max_length, requests)
        config = config.quick() if quick else config
        found = benchmark.find_program(program, report.progress)
        where = {"repository": str(repository)} if repository else {"url": url}
        result = report.heading("perf-analyzer", {**where, **dataclasses.asdict(config)})
        with ExitStack() as stack:
            if repository is not None:
                check_repository(repository)
                server = TritonServer(repository, ServerConfig(ports=FREE_PORTS, drain_timeout=3))
                address = stack.enter_context(server).grpc_address
            else:
                endpoint = parse_url(url or "")
                if endpoint.scheme != "grpc":
                    raise BenchError(f"--url {url}: perf_analyzer is run over plain gRPC, grpc://HOST:PORT")
                address = endpoint.netloc
            result["points"] = benchmark.measure(found, address, config, report.progress)
        rows = [
            (
                f"{point['model']}, {point['clients']} clients",
                point["requests_per_second"],
                point["failed"],
                *point["first_response_ms"].values(),
                *point["latency_ms"].values(),
            )
            for point in result["points"]
        ]
        columns = ("", "requests/s", "failed", "first response p50 ms", "p95", "whole p50 ms", "p95", "p99")
        report.table("perf_analyzer over gRPC", columns, rows)
        if as_json:
            report.json_line(result)


@contextmanager
def _session() -> Iterator[None]:
    """Errors as one line and an exit code; SIGTERM ends like Ctrl-C, so that every child is ended."""
    # Read when onnxruntime and huggingface_hub are imported, here and in every child.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Imported late in the commands, so that --help does not wait; here only for the names of what can go wrong.
    from neuro_latent_client import NeuroLatentError
    from neuro_latent_core.errors import PublicError
    from neuro_latent_serving.server import ServeError

    try:
        yield
    except (BenchError, NeuroLatentError, PublicError, ServeError, OSError, ValueError) as error:
        report.console.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        if hint := getattr(error, "hint", ""):
            report.console.print(hint, highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(2 if isinstance(error, ValueError) else 1) from None
    except KeyboardInterrupt:
        report.console.print("interrupted")
        raise typer.Exit(130) from None


def _repository(
    repository: Path | None, shape: str | None, precision: str, copying: bool
) -> tuple[Path, dict[str, Any]]:
    """The repository to measure, and how it is called in the result."""
    from neuro_latent_benchmarks import shapes

    if (repository is None) == (shape is None):
        raise typer.BadParameter("give either --repository REPO or --shape t5-small|embedded|tiny")
    if repository is not None:
        from neuro_latent_serving.server.repository import check_repository

        return repository, {"repository": str(repository), "model_version": check_repository(repository).model_version}
    assert shape is not None
    _check_shape(shape)
    models = shapes.prepare(shape, "copying" if copying else "lively", report.progress)
    which = {"shape": shape, "precision": precision, "weights": _weights(shape, models.style)}
    return shapes.repository(models, precision, report.progress), which


def _check_shape(shape: str) -> None:
    from neuro_latent_benchmarks.shapes import SHAPES

    if shape not in SHAPES:
        raise typer.BadParameter(f"--shape {shape}: known are {', '.join(SHAPES)}")


def _weights(shape: str, style: str = "") -> str:
    from neuro_latent_benchmarks.shapes import SHAPES

    kind = "random" if SHAPES[shape].t5 else "trained"
    return f"{kind}, {style}, </s> muted".replace(", ,", ",")


def _numbers(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers above 0, separated by commas."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"{option} {text}: whole numbers above 0, separated by commas, as 1,4,16")
    return tuple(map(int, parts))


def _show_decode(result: dict[str, Any]) -> None:
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
    first = [
        (f"{width} input tokens", spread["median"], spread["p90"]) for width, spread in result["first_token_ms"].items()
    ]
    report.table("first token, ms", ("", "median", "p90"), first)


def _show_serve(result: dict[str, Any]) -> None:
    rows = []
    for point in [*result["closed_loop"], *result["open_loop"]]:
        name = f"{point['clients']} clients" if "clients" in point else f"Poisson {point['rate']:.3g}/s"
        numbers = [point.get(key) or {} for key in ("latency_ms", "first_piece_ms", "token_ms")]
        rows.append(
            (
                name,
                *(numbers[0].get(percent) for percent in ("p50", "p95", "p99")),
                *(numbers[1].get(percent) for percent in ("p50", "p95")),
                numbers[2].get("p50"),
                point["tokens_per_second"],
                point["requests_per_second"],
                (point.get("engine") or {}).get("rows_per_step"),
                point["errors"],
            )
        )
    columns = (
        "",
        "p50 ms",
        "p95",
        "p99",
        "first text p50 ms",
        "p95",
        "ms/token",
        "tokens/s",
        "requests/s",
        "rows/step",
        "errors",
    )
    report.table("through Triton over gRPC, streamed", columns, rows)
    added, first = result["triton_adds"], result["first_requests"]
    report.table(
        "what Triton adds, one client",
        ("", "median ms", "p10", "p90"),
        [
            (name, spread["median"], spread["p10"], spread["p90"])
            for name, spread in (
                ("through Triton", added["through_triton_ms"]),
                ("in one process", added["in_one_process_ms"]),
                ("difference, in turns", added["added_ms"]),
            )
        ],
    )
    report.console.print(
        f"first request after ready {first['first_ms']:.1f} ms, tenth {first['tenth_ms']:.1f} ms: "
        f"{first['first_over_tenth']:.2f}x ({first['starts']} starts)",
        highlight=False,
    )


def _finish(result: dict[str, Any], draw: Any, plot: Path | None, as_json: bool) -> None:
    """Pictures, then the JSON line."""
    if plot is not None:
        result["plots"] = [str(path) for path in draw(result, plot)]
        report.progress(f"pictures: {', '.join(result['plots'])}")
    if as_json:
        report.json_line(result)
