"""Other systems beside this one, on the same weights, token ids and lengths: ``python -m research.baselines``.

``environment.py`` makes the Python environment of the others, ``worker.py`` runs one of them there as a process,
``ours.py`` runs our engine behind the same protocol, ``process.py`` is the other end of it, ``systems.py`` says which
there are, ``compare.py`` lets them take turns, ``batching.py`` is the comparison with many clients. Two more commands:
``training.py`` (the adapter beside PEFT's prompt tuning) and ``gpu.py`` (the engine beside PyTorch on a GPU).
"""
