"""Errors of the serving library, as the caller's interface should tell them apart.

ServingError
├── InvalidInput(ValueError)   the request is wrong: INVALID_ARGUMENT, HTTP 400
├── EngineBusy                 the queue is full: UNAVAILABLE, HTTP 503; try again later
└── EngineClosed               the engine is stopping or has failed: UNAVAILABLE, HTTP 503
"""


class ServingError(Exception):
    """Base of the errors that a caller is meant to see; the text is safe to send to a client."""


class InvalidInput(ServingError, ValueError):
    """A field of a request is wrong; the text names the field, the limit and the value."""


class EngineBusy(ServingError):
    """Every slot is taken and the queue is full."""


class EngineClosed(ServingError):
    """The engine does not take requests any more."""
