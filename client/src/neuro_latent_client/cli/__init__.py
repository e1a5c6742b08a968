"""The commands ``neuro-latent optimize``, ``feedback`` and ``health``."""
