"""Which transport a URL means."""

from ._settings import Settings
from ._transport import AsyncTransport, Transport

# Imported in the functions, because each transport pulls in a network stack.


def connect(settings: Settings) -> Transport:
    """The transport for the URL's scheme."""
    if settings.endpoint.is_grpc:
        from ._grpc import GrpcTransport

        return GrpcTransport(settings)
    from ._http import HttpTransport

    return HttpTransport(settings)


def connect_async(settings: Settings) -> AsyncTransport:
    """The asynchronous transport for the URL's scheme."""
    if settings.endpoint.is_grpc:
        from ._grpc_async import AsyncGrpcTransport

        return AsyncGrpcTransport(settings)
    from ._http_async import AsyncHttpTransport

    return AsyncHttpTransport(settings)
