"""Several adapters in one repository: what is there, how it is changed, and how a running Triton comes to serve it.

adapter_store.py  the versions of the model ``projector`` on disk: each is a set of adapters, and never changes
access.py         the secret with which a running server loads them
promotion.py      a new version on disk, loaded by Triton, probed; the one before again where that fails
cli.py            ``neuro-latent adapters``
"""
