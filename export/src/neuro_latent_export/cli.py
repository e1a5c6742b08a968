"""``neuro-latent export``."""

import json
import signal
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from neuro_latent_export.backends import BackendName, DeviceName
from neuro_latent_export.precision import MIN_ROWS, PRECISIONS, ROWS, PrecisionName


def export(
    adapter: Annotated[
        Path | None,
        typer.Option(
            help="Adapter folder, training run (its newest adapter is taken), or neuro-latent-mini (the embedded one).",
            metavar="DIR",
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="Model repository to write.", metavar="REPO")] = Path("repository"),
    encoder: Annotated[str | None, typer.Option(help="Frozen encoder, if not the one that the adapter names.")] = None,
    generator: Annotated[
        str | None,
        typer.Option(help="Frozen T5, if not the one that the adapter names; with --no-adapter, the fine-tuned T5."),
    ] = None,
    no_adapter: Annotated[
        bool,
        typer.Option(
            "--no-adapter", help="Export the T5 of --generator alone: what it writes is the better prompt; see below."
        ),
    ] = False,
    prefix: Annotated[
        str,
        typer.Option(help="With --no-adapter: the text that it was fine-tuned to read before every prompt."),
    ] = "",
    precision: Annotated[PrecisionName, typer.Option(help="How weights are stored; see above.")] = "fp32",
    backend: Annotated[
        BackendName, typer.Option(help="What runs encoder, projector and T5 encoder; see below.")
    ] = "python",
    device: Annotated[
        DeviceName | None,
        typer.Option(
            help="What the repository is served on; without it a CPU, and a GPU with --backend tensorrt. With "
            "--backend python, only the decoder goes to a GPU."
        ),
    ] = None,
    tensorrt_rtx: Annotated[
        str | None,
        typer.Option(
            "--tensorrt-rtx",
            help="With --backend tensorrt: build with TensorRT-RTX for GPUs of this compute capability (8.9), without "
            "one at hand. To check a repository: Triton does not load these engines.",
            metavar="CAPABILITY",
        ),
    ] = None,
    check_data: Annotated[
        Path | None,
        typer.Option(
            help="Prompts with enhanced prompts like those that the adapter learned, to compare with fp32 on; without "
            "it the prompts of the sample data set, with what fp32 writes for them.",
            metavar="FILE",
        ),
    ] = None,
    columns: Annotated[
        str, typer.Option(help="Names of that file's columns, as raw=NAME,enhanced=NAME.", metavar="MAP")
    ] = "",
    check_rows: Annotated[
        int, typer.Option(help="The most rows of it that are compared, spread over the file.", min=MIN_ROWS)
    ] = ROWS,
    only_adapter: Annotated[
        bool,
        typer.Option(
            "--only-adapter",
            help="Write the adapter's graph alone, for `neuro-latent adapters add`; --precision is the repository's.",
        ),
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace a repository to which adapters were added since, and lose them."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the manifest (of an adapter alone, its record) as one JSON line.")
    ] = False,
) -> None:
    """Export an adapter and its frozen models, or a fine-tuned T5, to a Triton model repository of ONNX graphs.

    Precisions:

      fp32  float32 everywhere: writes token for token what torch writes.

      int8  8-bit weights, products of integers: a third of the size, hardly a loss; the fastest for many clients.

      int4  as int8, and the decoder but its output layer with 4-bit weights: the fastest for one client.

      fp16  products and caches in float16, for GPUs. A CPU runs it, slower than fp32.

      bf16  likewise in bfloat16, for GPUs only.

    Every float32 graph is compared with torch, and the whole generation token by token on 64 prompts; graphs of other
    precisions are then compared with those, on the check data (16-bit ones by float32 graphs that round where they
    do). A repository that differs, or loses more than the bounds of its precision, is never written. What was compared
    is in REPO/manifest.json.

    Backends:

      python       brings ONNX Runtime with it, serves several adapters, and needs nothing else of Triton.

      onnxruntime  Triton's own, as in NVIDIA's image; one adapter a repository. The same texts in fp32.

      tensorrt     engines for the GPU at hand, made when the repository is exported; one adapter a repository. Needs
      TensorRT in the version of the Triton that will serve, and fp32, fp16 or bf16.

      neuro-latent export --adapter runs/first --output repository

      neuro-latent serve --repository repository

    A T5 that was fine-tuned to write prompts itself, such as roborovski/superprompt-v1 (a local folder in Hugging Face
    format), is served as it is, the prefix of its model card before every prompt:

      neuro-latent export --generator superprompt-v1 --no-adapter --prefix "Expand the following prompt to add more
      detail: "

    A repository that is there is replaced, but not while it is served. To add or change an adapter of it:
    neuro-latent adapters add NAME --adapter DIR --repository REPO.
    """
    if no_adapter and (adapter or encoder or only_adapter):
        other = "--adapter" if adapter else "--encoder" if encoder else "--only-adapter"
        raise typer.BadParameter(f"exports a T5 alone, so {other} has no use", param_hint="--no-adapter")
    if no_adapter and not generator:
        raise typer.BadParameter("is missing: --no-adapter needs the T5's folder", param_hint="--generator")
    if prefix and not no_adapter:
        raise typer.BadParameter("is for --no-adapter; an adapter's soft prompts do its work", param_hint="--prefix")
    if not adapter and not no_adapter:
        raise typer.BadParameter("is missing; to export a T5 alone, give --no-adapter", param_hint="--adapter")
    if only_adapter and check_data:
        raise typer.BadParameter("an adapter alone is compared with torch", param_hint="--check-data")
    if only_adapter and backend != "python":
        raise typer.BadParameter("only repositories of the python backend take adapters", param_hint="--only-adapter")
    if precision == "fp32" and check_data:
        raise typer.BadParameter("fp32 is compared with torch and needs no data", param_hint="--check-data")
    if tensorrt_rtx and backend != "tensorrt":
        raise typer.BadParameter("is for --backend tensorrt", param_hint="--tensorrt-rtx")
    if columns and not check_data:
        raise typer.BadParameter("names the columns of --check-data, which is missing", param_hint="--columns")
    # `serve --run` ends an export by SIGTERM; as an exception, so that the half-built folder is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(stderr=True)
    # Imported here so that --help does not wait for torch.
    from neuro_latent_export.agreement import read_check_data
    from neuro_latent_export.errors import ExportError
    from neuro_latent_export.repository import export_adapter, export_repository
    from neuro_latent_trainer.data import parse_columns
    from neuro_latent_trainer.errors import TrainerError

    try:
        with console.status("exporting") as status:

            def report(text: str) -> None:
                status.update(text)
                console.print(text, highlight=False)

            settings = {
                "encoder": encoder,
                "generator": generator,
                "precision": PRECISIONS[precision],
                "log": report,
            }
            if only_adapter:
                assert adapter is not None
                record = export_adapter(adapter, output, **settings)
                console.print(
                    f"{output}: {record['model_version']}. Add it to a repository with:\n"
                    f"  neuro-latent adapters add NAME --adapter {output} --repository REPO",
                    highlight=False,
                )
                if as_json:
                    typer.echo(json.dumps(record))
                return
            # Read first: a mistake in it shall not cost an export.
            mapping = parse_columns(columns) if columns else None
            data = None if precision == "fp32" else read_check_data(check_data, mapping, check_rows, report)
            manifest = export_repository(
                adapter,
                output,
                backend=backend,
                device=device,
                tensorrt_rtx=tensorrt_rtx,
                check_data=data,
                force=force,
                prefix=prefix,
                progress=status.update,
                **settings,
            )
    except (ExportError, TrainerError, OSError, ValueError) as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False)
        raise typer.Exit(1) from None
    next_step = f"Serve it with:\n  neuro-latent serve --repository {output}"
    if tensorrt_rtx:
        next_step = "For checks only: Triton does not load engines of TensorRT-RTX."
    console.print(f"{output}: {manifest['model_version']}, {_checked(manifest)}. {next_step}", highlight=False)
    if as_json:
        typer.echo(json.dumps(manifest))


def _checked(manifest: dict[str, Any]) -> str:
    """What the checks found, in a line."""
    generation, agreement = manifest["parity"]["generation"], manifest["agreement"]
    if agreement is None:
        return f"{generation['identical']} of {generation['prompts']} prompts token-identical to torch"
    return (
        f"{manifest['precision']} against fp32 on {agreement['rows']} rows of {agreement['data']}: "
        f"{agreement['cross_entropy_change']:+.4f} nats a token, the same next token before "
        f"{agreement['next_token_agreement']:.1%} of the tokens, {agreement['greedy_identical']:.0%} of the greedy "
        f"texts identical"
    )
