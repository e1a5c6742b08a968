"""``python -m neuro_latent_serving.launch``: ``neuro-latent serve`` where the client is not installed."""

import typer

from neuro_latent_serving.launch.cli import serve

typer.run(serve)
