"""``neuro-latent bench``."""

import dataclasses
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from neuro_latent_benchmarks import report
from neuro_latent_benchmarks.report import BenchError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Measure latency and throughput on this machine: the decode engine alone, and a real Triton. Tables on "
    "stderr, one JSON line on stdout with --json. Keep the machine idle meanwhile.",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON line, last on stdout.")]
Plot = Annotated[Path | None, typer.Option(help="Write pictures (PNG) to this folder.", metavar="DIR")]
Quick = Annotated[bool, typer.Option("--quick", help="Few repetitions: shows that it works, too few to compare.")]


@app.command()
def decode(
    repository: Annotated[Path, typer.Option(help="An exported repository, as for `neuro-latent serve`.")],
    rows: Annotated[str, typer.Option(help="Texts that are written together.")] = "1,2,4,8,16",
    input_tokens: Annotated[str, typer.Option(help="Encoder tokens, soft prompts among them.")] = "44,128",
    new_tokens: Annotated[str, typer.Option(help="Lengths of the texts.")] = "16,64,128",
    rounds: Annotated[int, typer.Option(help="Repetitions of each measurement.", min=1)] = 5,
    threads: Annotated[int, typer.Option(help="Threads of ONNX Runtime; 0 takes every core.", min=0)] = 0,
    device: Annotated[Literal["cpu", "gpu"], typer.Option(help="Where the decoder runs.")] = "cpu",
    quick: Quick = False,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """The decode engine alone: time per step and token by rows, input and length, with and without speculation.

    Texts never end by themselves here, so that each has the length that is measured.

      neuro-latent bench decode --repository repository --rows 1,16 --plot plots --json
    """
    with session():
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
        result = report.heading("decode", {**_described(repository), **dataclasses.asdict(config)})
        result |= benchmark.run_cells(repository, config)
        benchmark.show(result)
        finish(result, plots.decode, plot, as_json)


@app.command()
def serve(
    repository: Annotated[
        Path | None, typer.Option(help="An exported repository, as for `neuro-latent serve`, which is started.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Instead of a repository: a server that runs.", metavar="URL")] = None,
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

      neuro-latent bench serve --url grpc://127.0.0.1:8001 --concurrency 1,16 --max-length 128 --json
    """
    with session():
        from neuro_latent_benchmarks import plots
        from neuro_latent_benchmarks import serve as benchmark

        config = benchmark.ServeConfig(
            concurrency=_numbers("--concurrency", concurrency),
            loads=tuple(percent / 100 for percent in _numbers("--loads", loads)),
            max_length=max_length,
            seconds=seconds,
        )
        config = config.quick() if quick else config
        if repository is not None and url is None:
            result = report.heading("serve", {**_described(repository), **dataclasses.asdict(config)})
            result |= benchmark.run_server(repository, config)
        elif url is not None and repository is None:
            result = report.heading("serve", {"url": url, **dataclasses.asdict(config)})
            result |= benchmark.load_running(url, config)
        else:
            raise typer.BadParameter("give either --repository REPO or --url grpc://HOST:PORT")
        benchmark.show(result)
        finish(result, plots.serve, plot, as_json)


@app.command()
def trace(
    repository: Annotated[Path, typer.Option(help="An exported repository, as for `neuro-latent serve`.")],
    clients: Annotated[str, typer.Option(help="Clients that each ask again when they have their answer.")] = "1,4,16",
    max_length: Annotated[int, typer.Option(help="Tokens that a request asks for.", min=1, max=512)] = 64,
    quick: Quick = False,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Where a request's time goes: gateway, gRPC, each of Triton's models, and the parts of the engine.

    The same prompts over gRPC and through the gateway, in turns, without caches. The parts are means, by the clocks of
    Triton and of the engine; together they are what a client waits for.

      neuro-latent bench trace --repository repository --plot plots

      neuro-latent bench trace --repository repository --clients 1,8 --json
    """
    with session():
        from neuro_latent_benchmarks import plots
        from neuro_latent_benchmarks import trace as benchmark

        config = benchmark.TraceConfig(clients=_numbers("--clients", clients), max_length=max_length)
        config = config.quick() if quick else config
        result = report.heading("trace", {**_described(repository), **dataclasses.asdict(config)})
        result |= benchmark.run(repository, config)
        benchmark.show(result)
        finish(result, plots.trace, plot, as_json)


@contextmanager
def session() -> Iterator[None]:
    """Errors as one line and an exit code; SIGTERM ends like Ctrl-C, so that every child is ended."""
    # Read when onnxruntime and huggingface_hub are imported, here and in every child.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Imported late in the commands, so that --help does not wait; here only for the names of what can go wrong.
    from neuro_latent_core.errors import PublicError
    from neuro_latent_serving.launch import ServeError

    try:
        yield
    except (BenchError, PublicError, ServeError, OSError, ValueError) as error:
        report.console.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        if hint := getattr(error, "hint", ""):
            report.console.print(hint, highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(2 if isinstance(error, ValueError) else 1) from None
    except KeyboardInterrupt:
        report.console.print("interrupted")
        raise typer.Exit(130) from None


def finish(
    result: dict[str, Any], draw: Callable[[Mapping[str, Any], Path], list[Path]], plot: Path | None, as_json: bool
) -> None:
    """Pictures, then the JSON line."""
    if plot is not None:
        result["plots"] = [str(path) for path in draw(result, plot)]
        report.progress(f"pictures: {', '.join(result['plots'])}")
    if as_json:
        report.json_line(result)


def _described(repository: Path) -> dict[str, str]:
    """How the repository is called in the result; refuses a folder that is none."""
    from neuro_latent_serving.repository.check import check_repository

    return {"repository": str(repository), "model_version": check_repository(repository).model_version}


def _numbers(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers above 0, separated by commas."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"{option} {text}: whole numbers above 0, separated by commas, as 1,4,16")
    return tuple(map(int, parts))
