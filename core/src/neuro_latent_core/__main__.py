"""``python -m neuro_latent_core`` is ``neuro-latent``."""

from neuro_latent_core.cli import main

main()
