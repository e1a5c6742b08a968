"""Adapters in a folder or an object store, from which the servers of a cluster take them while they serve.

    published.json       {"format": 3, "adapters": {"default": "3f2a…"}}: the sha256 of each adapter's record, by name,
                         and "former": those of the index before, whose files go with the next one
    3f2a…/adapter.json   the record, which has the sha256 of the graph
    3f2a…/model.onnx     the graph

So the index has, by hash, all that is loaded. What a folder holds never changes; the index is replaced in one go. One
publisher at a time: two could remove each other's files.
"""

import hashlib
import os
import re
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated

import fsspec
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neuro_latent_client import Client
from neuro_latent_core.limits import ADAPTER_NAME
from neuro_latent_core.repository import DEFAULT, FORMAT, GRAPH, RECORD, sha256
from neuro_latent_serving.adapters.adapter_store import AdapterStore, Version
from neuro_latent_serving.adapters.promotion import promote
from neuro_latent_serving.errors import ServeError
from neuro_latent_serving.repository.records import AdapterRecord

INDEX = "published.json"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=f"^{ADAPTER_NAME}$")]


class UnreadableError(ServeError):
    """What is published cannot be had now, or not whole; another try may do."""


class PublishedSet(BaseModel):
    """``published.json``.

    Attributes:
        adapters: by name, each the sha256 of its record.
        former: those of the index before.
    """

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    adapters: dict[Name, Digest]
    former: tuple[Digest, ...] = ()


class PublishedAdapters:
    """A place of published adapters.

    Args:
        url: a folder, or an address that fsspec reads, such as ``s3://bucket/adapters``; what that needs beside
            (``s3fs``, credentials in the environment) is fsspec's to say.

    Raises:
        ServeError: fsspec does not know such addresses, or misses a package for them.
    """

    def __init__(self, url: str) -> None:
        self.url = re.sub("//[^/]*@", "//", url)  # as it is shown: without credentials
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ServeError(f"{self.url} cannot be read: {error}") from None

    def read(self) -> PublishedSet | None:
        """What is published; None where nothing was yet.

        Raises:
            ServeError: it cannot be read, or is none that this version knows.
        """
        try:
            found = PublishedSet.model_validate_json(self._bytes(INDEX))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise UnreadableError(f"{self.url}/{INDEX} is no list of adapters: {error.errors()[0]['msg']}") from None
        if found.format != FORMAT or DEFAULT not in found.adapters:
            raise ServeError(
                f"{self.url}/{INDEX}: format {found.format} with the adapters {', '.join(found.adapters) or '(none)'}; "
                f"this version reads format {FORMAT}, with a {DEFAULT}"
            )
        return found

    def fetch(self, digest: str, folder: Path) -> None:
        """Copy an adapter into an empty folder.

        Raises:
            ServeError: it cannot be read, or is not what the index or the record says.
        """
        try:
            record = self._bytes(f"{digest}/{RECORD}")
            graph = self._bytes(f"{digest}/{GRAPH}")
        except FileNotFoundError:
            raise UnreadableError(f"{self.url}: {digest} is in {INDEX} and not there whole") from None
        if hashlib.sha256(record).hexdigest() != digest:
            raise UnreadableError(f"{self.url}/{digest}/{RECORD}: its sha256 is not that of {INDEX}")
        try:
            wanted = AdapterRecord.model_validate_json(record).graph.sha256
        except ValidationError as error:
            raise ServeError(f"{self.url}/{digest}/{RECORD} cannot be read: {error.errors()[0]['msg']}") from None
        if hashlib.sha256(graph).hexdigest() != wanted:
            raise UnreadableError(f"{self.url}/{digest}/{GRAPH}: its sha256 is not that of {RECORD}")
        (folder / RECORD).write_bytes(record)
        (folder / GRAPH).write_bytes(graph)

    def publish(self, version: Version) -> PublishedSet:
        """Put a version's adapters here, in place of those from before, whose files stay until the next time.

        Nothing but what an index has named is ever removed.

        Raises:
            ServeError: nothing can be written here.
        """
        try:
            before = self.read()
        except UnreadableError:  # left by a publisher that was killed
            before = None
        folders = {name: version.folder_of(name) for name in version.adapters}
        found = PublishedSet(
            adapters={name: sha256(folder / RECORD) for name, folder in folders.items()},
            former=tuple(sorted(set(before.adapters.values()))) if before else (),
        )
        try:
            for name, digest in found.adapters.items():
                self._files.makedirs(f"{self._root}/{digest}", exist_ok=True)
                for file in (GRAPH, RECORD):
                    self._write(f"{digest}/{file}", (folders[name] / file).read_bytes())
            self._write(INDEX, found.model_dump_json(indent=2).encode() + b"\n")
            for digest in set(before.former if before else ()) - {*found.adapters.values(), *found.former}:
                if self._files.exists(f"{self._root}/{digest}"):
                    self._files.rm(f"{self._root}/{digest}", recursive=True)
        except Exception as error:  # each kind of store has errors of its own
            raise ServeError(f"{self.url} cannot be written: {error}") from error
        return found

    def _bytes(self, name: str) -> bytes:
        try:
            found: bytes = self._files.cat_file(f"{self._root}/{name}")
        except FileNotFoundError:
            raise
        except Exception as error:  # each kind of store has errors of its own
            raise UnreadableError(f"{self.url}/{name} cannot be read: {error}") from error
        return found

    def _write(self, name: str, content: bytes) -> None:
        """Replace a file in one go; one that is there already stays."""
        path = f"{self._root}/{name}"
        if self._files.exists(path) and self._files.cat_file(path) == content:
            return
        if isinstance(self._files, LocalFileSystem):
            part = Path(f"{path}.part")
            part.write_bytes(content)
            os.replace(part, path)
        else:
            self._files.pipe_file(path, content)


def converge(
    store: AdapterStore, published: PublishedAdapters, wanted: PublishedSet, client: Client
) -> tuple[list[Version], list[ServeError]]:
    """Have a server serve what is published: each adapter that differs is loaded and probed, and taken back where that
    fails.

    Returns:
        The versions that this made, none where all is as published; and why an adapter cannot be had or loaded, or does
        not answer. The others are served.

    Raises:
        ServeError: an adapter that is not published any more cannot be removed.
    """
    made: list[Version] = []
    errors: list[ServeError] = []
    for name, digest in sorted(wanted.adapters.items(), key=lambda item: item[0] != DEFAULT):
        newest = store.newest()
        if name in newest.adapters and sha256(newest.folder_of(name) / RECORD) == digest:
            continue
        with tempfile.TemporaryDirectory(prefix="neuro-latent-adapter-") as temporary:
            folder = Path(temporary)
            try:
                published.fetch(digest, folder)
                made.append(promote(store, partial(store.add, name, folder), client))
            except ServeError as error:
                errors.append(error)
    for name in store.newest().adapters.keys() - wanted.adapters.keys():
        made.append(promote(store, partial(store.remove, name), client))
    return made, errors
