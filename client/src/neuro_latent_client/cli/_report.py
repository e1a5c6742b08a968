"""How the commands tell the client's errors."""

from collections.abc import Iterator
from contextlib import contextmanager

from neuro_latent_client.errors import InvalidRequestError, NeuroLatentError
from neuro_latent_core.command_line import fail


@contextmanager
def errors_as_lines() -> Iterator[None]:
    """Exit 2 for what the user can correct in the command, 1 for all other errors of the client."""
    try:
        yield
    except InvalidRequestError as error:
        fail(f"error: {error}", exit_code=2)
    except NeuroLatentError as error:
        fail(f"error: {error}")
