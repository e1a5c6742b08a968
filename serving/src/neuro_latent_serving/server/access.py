"""Who may do more on a Triton than ask for answers."""

import secrets
from dataclasses import dataclass

from neuro_latent_client.protocol import OWN_HEADER, OWN_VALUE

CLOSED_APIS = "model-repository,shared-memory,trace,logging"
"""What nobody on a network needs: loading models, mapping memory, writing trace files, changing the log."""

CONNECTION_AGE_MS = 300_000
CONNECTION_GRACE_MS = 600_000  # as long as the longest deadline of a request


@dataclass(frozen=True)
class Access:
    """Options of tritonserver, and the HTTP header with which its starter asks what is closed to others."""

    arguments: tuple[str, ...]
    header: tuple[str, str]


def access(host: str) -> Access:
    """Of a server that listens on ``host``, a numeric address."""
    return on_this_machine() if host.startswith("127.") else on_a_network()


def on_this_machine() -> Access:
    """Models are loaded when somebody asks. Who may ask can also send a model, which is a program; so only this machine
    may, and over HTTP only with a header that the page of a web site cannot send to another origin.

    Strict readiness would count the versions that a newer one has replaced as not ready. Whoever starts us asks each
    model, and a model that does not load ends the server.
    """
    arguments = (
        "--model-control-mode=explicit",
        "--load-model=*",
        f"--http-restricted-api=model-repository:{OWN_HEADER}={OWN_VALUE}",
        "--strict-readiness=false",
    )
    return Access(arguments, (OWN_HEADER, OWN_VALUE))


def on_a_network() -> Access:
    """Nothing is loaded after the start, and the other APIs want a secret that only this start knows.

    Readiness is strict: a load balancer asks for it, and leaves out a server of which a model has failed. Connections
    are renewed, so that clients that keep theirs find the replicas that came after them.
    """
    secret = secrets.token_urlsafe(32)
    arguments = (
        "--model-control-mode=none",
        f"--http-restricted-api={CLOSED_APIS}:{OWN_HEADER}={secret}",
        f"--grpc-restricted-protocol={CLOSED_APIS}:{OWN_HEADER}={secret}",
        "--strict-readiness=true",
        f"--grpc-max-connection-age={CONNECTION_AGE_MS}",
        f"--grpc-max-connection-age-grace={CONNECTION_GRACE_MS}",
    )
    return Access(arguments, (OWN_HEADER, secret))
