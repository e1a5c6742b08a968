"""How requests reach a server: gRPC or HTTP, each blocking and for asyncio."""

from .._endpoint import Settings
from .base import Transport


def connect(settings: Settings, *, blocking: bool) -> Transport:
    """The transport for the URL's scheme. Imported only now, because each pulls in a network stack."""
    if settings.endpoint.is_grpc:
        from .grpc import AsyncGrpcTransport, GrpcTransport

        return (GrpcTransport if blocking else AsyncGrpcTransport)(settings)
    from .http import AsyncHttpTransport, HttpTransport

    return (HttpTransport if blocking else AsyncHttpTransport)(settings)
