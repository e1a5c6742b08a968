"""A change of adapters in a server that goes on: written, loaded, probed, and taken back where that fails."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from neuro_latent_client import Client, DeadlineError, InvalidRequestError, NeuroLatentError
from neuro_latent_core.repository import DEFAULT
from neuro_latent_serving.adapters.access import access_folder
from neuro_latent_serving.adapters.adapter_store import AdapterStore, Version
from neuro_latent_serving.errors import ServeError

PROBE_PROMPT = "Create a function that sorts a list of numbers"
PROBE_TOKENS = 8
PROBE_TIMEOUT_S = 30.0


class ProbeError(ServeError):
    """Adapters do not load, or do not answer as they should."""


def promote(store: AdapterStore, change: Callable[[], Version], client: Client | None) -> Version:
    """Make a change and have the server answer by it; without a ``client`` it is only written. The new version.

    Raises:
        ServeError: it cannot be written, the server does not load it, or does not answer as it should by then; the
            adapters from before answer.
    """
    if client is None:
        return change()
    with store.probing():
        version = change()
        _bring_in(store, version, client)
    return version


def settle(store: AdapterStore, ask: Callable[[Callable[[Client], None]], None]) -> list[int]:
    """Probe what a killed change has published, before a server serves it; the versions that had to be withdrawn.

    Where the repository is only to be read, the version is probed and stays.

    Args:
        ask: calls what it is given with the client of a server that serves the newest version and nobody else.

    Raises:
        ServeError: the repository cannot be changed, or the server does not start for another reason.
        ProbeError: a version does not answer and cannot be withdrawn, for the repository is only to be read.
        StopRequestedError: as :meth:`AdapterStore.changing`.
    """
    if not store.is_writable():
        if (version := store.unprobed()) is not None:
            ask(partial(probe, version=version))
        return []
    withdrawn = []
    with store.probing():
        while (version := store.unprobed()) is not None:
            try:
                ask(partial(probe, version=version))
                break
            except ProbeError:
                store.withdraw(version)
                withdrawn.append(version.number)
    return withdrawn


def _bring_in(store: AdapterStore, version: Version, client: Client) -> None:
    try:
        client.load_adapters()
    except NeuroLatentError as error:
        store.withdraw(version)
        if isinstance(error, DeadlineError):  # it may be loaded by now
            with suppress(NeuroLatentError):
                client.load_adapters()
        raise ServeError(
            f"version {version.number} was not loaded and is withdrawn: {error}",
            "Is it the address of the Triton that serves this repository, started on 127.0.0.1 by neuro-latent serve "
            f"of this same user? Its secret is looked for in {access_folder()}.\n"
            "(One that listens on a network loads adapters by itself alone: serve --watch-adapters.)\n"
            "--offline only writes; a server that starts later serves what was written.",
        ) from error
    try:
        probe(client, version)
    except ServeError as error:
        raise ServeError(f"{error.message}; {_taken_back(store, client)}", error.hint) from None


def probe(client: Client, version: Version) -> None:
    """Ask for the adapter that a version has changed, and for the default, by both models.

    Raises:
        ProbeError: an answer fails, or comes from another version.
    """
    assert version.change is not None
    for name in dict.fromkeys((version.change.adapter, DEFAULT)):
        record = version.adapters.get(name)
        if record is None:
            _expect_unknown(client, name)
            continue
        try:
            whole = client.optimize(PROBE_PROMPT, max_length=PROBE_TOKENS, adapter=name, timeout=PROBE_TIMEOUT_S)
            with client.stream(PROBE_PROMPT, max_length=PROBE_TOKENS, adapter=name, timeout=PROBE_TIMEOUT_S) as stream:
                for _piece in stream:
                    pass
        except NeuroLatentError as error:
            raise ProbeError(f"the probe of adapter {name} in version {version.number} failed: {error}") from error
        for answer in (whole, stream.result):
            if answer.model_version != record.model_version:
                raise ProbeError(
                    f"the probe of adapter {name} was answered by {answer.model_version}, not by "
                    f"{record.model_version}",
                    "Is it the address of the Triton that serves this repository?",
                )


def _expect_unknown(client: Client, name: str) -> None:
    try:
        client.optimize(PROBE_PROMPT, max_length=PROBE_TOKENS, adapter=name, timeout=PROBE_TIMEOUT_S)
    except InvalidRequestError:
        return
    except NeuroLatentError as error:
        raise ProbeError(f"the probe of the removed adapter {name} failed: {error}") from error
    raise ProbeError(f"the server still answers for the removed adapter {name}")


def _taken_back(store: AdapterStore, client: Client) -> str:
    version = store.rollback()
    try:
        client.load_adapters()
    except NeuroLatentError as error:
        return f"version {version.number}, with the adapters from before, is written but was not loaded: {error}"
    return f"version {version.number} has the adapters from before and is loaded"
