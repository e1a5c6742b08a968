"""``python -m neuro_latent_serving.server``: ``neuro-latent serve`` where the client is not installed."""

import typer

from neuro_latent_serving.server.cli import serve

typer.run(serve)
