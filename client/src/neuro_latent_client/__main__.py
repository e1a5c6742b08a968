"""``python -m neuro_latent_client`` is ``neuro-latent``."""

from .cli import main

main()
