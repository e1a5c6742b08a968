"""What can go wrong, as one tree.

* NeuroLatentError
  - InvalidRequestError (also a ValueError)   a value, an option or the URL is wrong; sending it again will not help
  - ServerUnavailableError                    no server there, or it is too busy; trying again later may help
  - DeadlineError (also a TimeoutError)       no whole answer within ``timeout`` seconds
  - AccessDeniedError                         the server wants another API key or certificate
  - ModelNotFoundError                        a server is there, but it does not serve these models, or not so
  - ServerError                               the server failed, or answered outside its contract
"""

from neuro_latent_core.errors import InvalidInput, PublicError


class NeuroLatentError(PublicError):
    """The root of all errors of this package.

    Attributes:
        message: the text without the id.
        request_id: the id that the request carried, to find it in the server's log; None before there was one.
    """

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(f"{message} (request {request_id})" if request_id else message)
        self.message, self.request_id = message, request_id


class InvalidRequestError(NeuroLatentError, InvalidInput):
    """A value, an option or the URL is wrong: the text names it."""


class ServerUnavailableError(NeuroLatentError):
    """No server answers at the address, the connection was lost, or the server is too busy to take the request.

    Attributes:
        retry_after_s: seconds after which the server wants to be asked again; ``inf`` where waiting is no use, None
            where nobody says.
    """

    def __init__(self, message: str, *, request_id: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message, request_id=request_id)
        self.retry_after_s = retry_after_s


class DeadlineError(NeuroLatentError, TimeoutError):
    """The whole answer did not arrive within ``timeout`` seconds."""


class AccessDeniedError(NeuroLatentError):
    """The server knows neither the API key nor the certificate of this client, or does not allow it this call."""


class ModelNotFoundError(NeuroLatentError):
    """The server does not serve the models of the Neuro-Latent Optimizer, or its port speaks another protocol."""


class ServerError(NeuroLatentError):
    """The server failed, or its answer is outside the contract in :mod:`neuro_latent_core.protocol`."""
