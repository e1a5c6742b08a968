"""Start, watch and stop one Triton server: what ``neuro-latent serve`` does, as a library.

``with TritonServer(repository, ServerConfig(ports=FREE_PORTS)) as server:`` gives a server that is ready and that
leaves no process and no shared memory behind, whichever way the block, or the program, ends.
"""

from neuro_latent_serving.errors import ServeError, ServerEndedError, UsageError
from neuro_latent_serving.launch.binary import TritonBinary, find_tritonserver
from neuro_latent_serving.launch.triton_server import ReadyModel, ServerConfig, TritonServer
from neuro_latent_serving.web.ports import FREE_PORTS, Ports

__all__ = [
    "FREE_PORTS",
    "Ports",
    "ReadyModel",
    "ServeError",
    "ServerConfig",
    "ServerEndedError",
    "TritonBinary",
    "TritonServer",
    "UsageError",
    "find_tritonserver",
]
