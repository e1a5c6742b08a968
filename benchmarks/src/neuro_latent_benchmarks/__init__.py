"""Latency and throughput of the Neuro-Latent Optimizer: ``neuro-latent bench``.

``cli.py`` has the commands; each has a module of its own (``decode.py``, ``serve.py``, ``trace.py``). Below them:
``pipeline.py`` runs a repository in one process, ``load.py`` makes load, ``statistics.py`` condenses, ``report.py`` and
``plots.py`` show. ``demo.py`` is ``make demo``.
"""
