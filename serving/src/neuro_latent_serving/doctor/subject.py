"""What is examined: an installation by the caller's choices, and a repository where one is named."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from neuro_latent_serving.doctor.gpus import Gpu, find_gpus
from neuro_latent_serving.doctor.repository import Model, Repository
from neuro_latent_serving.server.ports import Ports
from neuro_latent_serving.server.repository import Manifest


@dataclass(frozen=True)
class Options:
    """What the caller asked for.

    Attributes:
        verify: compare hashes, not sizes alone.
        graphs: open the graphs.
    """

    repository: Path | None = None
    host: str = "127.0.0.1"
    ports: Ports = field(default_factory=Ports)
    gateway_host: str = "127.0.0.1"
    gateway_port: int = 8080
    tritonserver: Path | None = None
    verify: bool = True
    graphs: bool = True


class Subject:
    """An installation, and a repository where one is named."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.repository: Repository | None = None
        if options.repository is not None:
            self.repository = Repository(options.repository.absolute(), verify=options.verify)

    @cached_property
    def gpus(self) -> list[Gpu]:
        """Those of this machine."""
        return find_gpus()

    @property
    def models(self) -> dict[str, Model]:
        return self.repository.models if self.repository else {}

    @property
    def manifest(self) -> Manifest | None:
        manifest = self.repository.manifest if self.repository else None
        return manifest if isinstance(manifest, Manifest) else None
