"""Latency and throughput of the Neuro-Latent Optimizer: ``neuro-latent bench``.

``cli.py`` has the three commands; each has a module of its own (``decode.py``, ``serve.py``, ``peers/compare.py``).
Below them: ``shapes.py`` makes the models, ``pipeline.py`` runs a repository in one process, ``load.py`` makes load,
``statistics.py`` condenses, ``report.py`` and ``plots.py`` show.
"""
