"""Errors of requests, as the caller's interface should tell them apart, and of commands, with the way out.

PublicError
├── InvalidInput(ValueError)   of core, as PublicError is: the request is wrong: INVALID_ARGUMENT, HTTP 400
├── DeviceMissing              the decoder cannot be opened on its device; at the start only
├── StoreDamaged               the database of the feedback is damaged: INTERNAL, HTTP 500; trying again is no use
└── Unavailable                not now: UNAVAILABLE, HTTP 503; try again later
    ├── EngineBusy             the queue is full
    ├── EngineClosed           the engine is stopping or has failed
    └── StoreUnavailable       the database of the feedback cannot be reached or written
        └── StoreUnwritable    nor can it be until somebody repairs it: INTERNAL, HTTP 500

ServeError                     of a command: exit code 1
├── ServerEndedError           a server that was ready has ended by itself
├── StartError                 a server has ended, or was not ready in time, while it started
└── UsageError                 exit code 2: the command line asks for something that cannot be
"""

from typing import ClassVar

from neuro_latent_core.errors import PublicError


class DeviceMissing(PublicError):
    """The device that the decoder is meant for, or what drives it, is not there; the text says what to do."""


class Unavailable(PublicError):
    """The request is right, but cannot be served now."""


class EngineBusy(Unavailable):
    """Every slot is taken and the queue is full."""


class EngineClosed(Unavailable):
    """The engine does not take requests any more."""


class StoreUnavailable(Unavailable):
    """The database of the feedback cannot be reached or written; nothing was stored."""


class StoreUnwritable(StoreUnavailable):
    """The database of the feedback can never be written as it is; nothing was stored, and trying again is no use."""

    TEXT = (
        "the database of the feedback is unavailable: it cannot be written, nothing was stored, and its operator has "
        "to make it writable"
    )

    def __init__(self) -> None:
        super().__init__(self.TEXT)


class StoreDamaged(PublicError):
    """The database of the feedback is damaged; nothing is stored until somebody repairs it."""

    TEXT = "the database of the feedback is damaged: nothing was stored, and its operator has to restore it"

    def __init__(self) -> None:
        super().__init__(self.TEXT)


NEEDS_OPERATOR = (StoreDamaged.TEXT, StoreUnwritable.TEXT)
"""What a feedback is answered where trying again is no use."""


class ServeError(Exception):
    """A failure that a person can act on: ``message`` says what is wrong, ``hint`` what to do."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}\n{hint}" if hint else message)
        self.message = message
        self.hint = hint


class UsageError(ServeError):
    """An option has a value that cannot be used."""

    exit_code: ClassVar[int] = 2


class StartError(ServeError):
    """A server has ended, or was not ready in time, while it started."""


class ServerEndedError(ServeError):
    """A server that was ready has ended by itself; ``stalled`` where one of its processes had stood still before."""

    def __init__(self, message: str, hint: str = "", *, stalled: bool = False) -> None:
        super().__init__(message, hint)
        self.stalled = stalled
