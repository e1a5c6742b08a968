"""The decode engine: one process, one KV cache, many requests that decode together.

In the order in which a request passes them::

    engine.py      the queue, the loop, what a caller submits and gets back
    sequence.py    one text being written: tokens, score, limits, text stream
    cache.py       the rows that decode together and their keys and values
    decoder.py     the two ONNX graphs: prefill and step
    sampling.py    which token comes next
"""

from neuro_latent_serving.engine.engine import Engine, EngineConfig, Request
from neuro_latent_serving.engine.sequence import Event

__all__ = ["Engine", "EngineConfig", "Event", "Request"]
