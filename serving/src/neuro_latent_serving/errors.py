"""Errors of the serving library, as the caller's interface should tell them apart.

PublicError
├── InvalidInput(ValueError)   of core, as PublicError is: the request is wrong: INVALID_ARGUMENT, HTTP 400
├── DeviceMissing              the decoder cannot be opened on its device; at the start only
├── StoreDamaged               the database of the feedback is damaged: INTERNAL, HTTP 500; trying again is no use
└── Unavailable                not now: UNAVAILABLE, HTTP 503; try again later
    ├── EngineBusy             the queue is full
    ├── EngineClosed           the engine is stopping or has failed
    └── StoreUnavailable       the database of the feedback cannot be reached or written
        └── StoreUnwritable    nor can it be until somebody repairs it: INTERNAL, HTTP 500
"""

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
