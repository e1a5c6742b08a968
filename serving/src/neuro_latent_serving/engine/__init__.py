"""The decode engine: one process, one KV cache, many requests that decode together.

In the order in which a request passes them::

    request.py             what a caller submits
    engine.py              the thread
    loop.py                the queue, the slots, the step
    running.py             a running request: sampled sequences, or the beams of a search
    contract.py            what the loop asks of a decoder
    decoder_factory.py     which decoder: the CPU's, or the device's
    host_decoder.py        the two ONNX graphs on the CPU: prefill and step
    rows.py, cache.py      the rows in flight, and their keys and values
    device/                the same in the memory of a GPU
    speculation.py         drafts copied from the prompt, and when they pay
    sampling.py, beams.py  which tokens come next
    gate.py                how sure the adapter is
    sequence.py            one answer: tokens, confidence, what of it is served
    metrics.py             what is counted
"""

from neuro_latent_serving.engine.engine import Engine, EngineConfig
from neuro_latent_serving.engine.gate import GateOutput
from neuro_latent_serving.engine.request import Request
from neuro_latent_serving.engine.sequence import Event

__all__ = ["Engine", "EngineConfig", "Event", "GateOutput", "Request"]
