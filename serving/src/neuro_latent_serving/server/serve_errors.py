"""What can go wrong, with the way out.

ServeError               exit code 1
├── ServerEndedError     a server that was ready has ended by itself
├── StartError           a server has ended, or was not ready in time, while it started
└── UsageError           exit code 2: the command line asks for something that cannot be
"""

from typing import ClassVar


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
