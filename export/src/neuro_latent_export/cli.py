"""``neuro-latent export``."""

import json
import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def export(
    adapter: Annotated[
        Path, typer.Option(help="Adapter folder, or a training run (its newest adapter is taken).", metavar="DIR")
    ],
    output: Annotated[Path, typer.Option(help="Model repository to write.", metavar="REPO")] = Path("repository"),
    encoder: Annotated[str | None, typer.Option(help="Frozen encoder, if not the one that the adapter names.")] = None,
    generator: Annotated[str | None, typer.Option(help="Frozen T5, if not the one that the adapter names.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as one JSON line on stdout.")] = False,
) -> None:
    """Export an adapter and its frozen models to a Triton model repository of ONNX graphs (float32).

    Every graph is compared with torch, and the whole generation token by token on 64 prompts; a repository that
    differs is never written. What was compared is in REPO/manifest.json.

      neuro-latent export --adapter runs/first --output repository

      neuro-latent serve --repository repository
    """
    # `serve --run` ends an export by SIGTERM; as an exception, so that the half-built folder is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(stderr=True)
    # Imported here so that --help does not wait for torch.
    from neuro_latent_export.parity import ParityError
    from neuro_latent_export.repository import ExportError, export_repository
    from neuro_latent_trainer.adapter_folder import AdapterError
    from neuro_latent_trainer.backbones import BackboneError

    try:
        with console.status("exporting") as status:

            def report(text: str) -> None:
                status.update(text)
                console.print(text, highlight=False)

            manifest = export_repository(
                adapter,
                output,
                encoder=encoder,
                generator=generator,
                log=report,
            )
    except (AdapterError, BackboneError, ParityError, ExportError, OSError, ValueError) as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False)
        raise typer.Exit(1) from None
    generation = manifest["parity"]["generation"]
    console.print(
        f"{output}: {manifest['model_version']}, {generation['identical']} of {generation['prompts']} prompts "
        f"token-identical to torch. Serve it with:\n  neuro-latent serve --repository {output}",
        highlight=False,
    )
    if as_json:
        typer.echo(json.dumps(manifest))
