"""The adapter folder: ``adapter_config.json``, ``adapter_model.safetensors``, ``README.md`` (the model card), and
``frequent_sentences.json.gz`` where the adapter learned to write some sentences often."""

import gzip
import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors.torch import load_file, save
from torch import Tensor

from neuro_latent_trainer import files
from neuro_latent_trainer.adapter import Adapter, AdapterConfig
from neuro_latent_trainer.backbones import resolve
from neuro_latent_trainer.choices import EMBEDDED
from neuro_latent_trainer.errors import TrainerError

CONFIG_FILE = "adapter_config.json"
CARD_FILE = "README.md"
WEIGHTS_FILE = "adapter_model.safetensors"
SENTENCES_FILE = "frequent_sentences.json.gz"
FORMAT = 1
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class AdapterError(TrainerError):
    """A folder holds no adapter, or one that cannot be read."""


@dataclass(frozen=True)
class BackboneName:
    """A frozen model that an adapter belongs to: its name, and the fingerprint of its weights ("" is not recorded)."""

    name: str
    sha256: str = ""


@dataclass(frozen=True)
class SavedAdapter:
    """What an adapter folder holds; ``sentences`` are those of :mod:`neuro_latent_trainer.frequent`."""

    config: AdapterConfig
    encoder: BackboneName
    generator: BackboneName
    tensors: dict[str, Tensor]
    training: dict[str, Any]
    card: str = ""
    sentences: dict[str, int] = field(default_factory=dict)


def locate(path: Path) -> Path:
    """The adapter folder of ``path``: itself, or ``path/adapter`` of a training run or of ``neuro-latent-mini``.

    Raises:
        AdapterError: neither holds an adapter.
        BackboneError: the embedded pair is asked for and is not installed.
    """
    if path.parts[:1] == (EMBEDDED,):
        path = Path(resolve(str(path)))
    for folder in (path, path / "adapter"):
        if (folder / CONFIG_FILE).is_file() and (folder / WEIGHTS_FILE).is_file():
            return folder
    raise AdapterError(
        f"no adapter in {path}: expected {CONFIG_FILE} and {WEIGHTS_FILE} there or in {path / 'adapter'} "
        "(a training run writes them after its first epoch)"
    )


def version(folder: Path) -> str:
    """Digits of the SHA-256 of an adapter folder's weights, which a served model version has in its name.

    Raises:
        OSError: they cannot be read.
    """
    with (folder / WEIGHTS_FILE).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def fetch(name: str | Path) -> Path:
    """The local folder of an adapter: ``name`` itself, or a download from the Hugging Face Hub.

    Raises:
        AdapterError: there is no such folder, and no such adapter on the Hub either.
    """
    if Path(name).exists() or isinstance(name, Path) or not HUB_NAME.fullmatch(name):
        return Path(name)
    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, SENTENCES_FILE]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise AdapterError(
            f"no adapter {name!r}: no such folder here, and not to be had from the Hugging Face Hub "
            f"({str(error).strip().splitlines()[0]})"
        ) from None


def read(path: Path) -> SavedAdapter:
    """Read the adapter of a folder or of a training run.

    Raises:
        AdapterError: there is none, it is of another format, or its files are damaged.
    """
    folder = locate(path)
    try:
        values = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        if values.get("format") != FORMAT:
            raise AdapterError(f"{folder / CONFIG_FILE}: format {values.get('format')!r}, expected {FORMAT}")
        return SavedAdapter(
            config=AdapterConfig.from_dict(values["adapter"]),
            encoder=BackboneName(**values["encoder"]),
            generator=BackboneName(**values["generator"]),
            tensors=load_file(folder / WEIGHTS_FILE),
            training=values.get("training", {}),
            card=(folder / CARD_FILE).read_text(encoding="utf-8") if (folder / CARD_FILE).is_file() else "",
            sentences=_read_sentences(folder / SENTENCES_FILE),
        )
    except AdapterError:
        raise
    except Exception as error:
        raise AdapterError(f"cannot read the adapter in {folder}: {error}") from error


def _read_sentences(path: Path) -> dict[str, int]:
    """Adapters of earlier versions have no such file."""
    if not path.is_file():
        return {}
    return {str(text): int(times) for text, times in json.loads(gzip.decompress(path.read_bytes())).items()}


def write(
    folder: Path,
    adapter: Adapter,
    encoder: BackboneName,
    generator: BackboneName,
    training: dict[str, Any],
    card: str,
    sentences: dict[str, int] | None = None,
) -> None:
    """Write an adapter folder, each file by rename, so that a reader never sees half of one."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "format": FORMAT,
        "adapter": adapter.config.model_dump(),
        "encoder": asdict(encoder),
        "generator": asdict(generator),
        "training": training,
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in adapter.state_dict().items()}
    packed = gzip.compress(json.dumps(sentences, ensure_ascii=False).encode(), mtime=0) if sentences else b""
    for name, content in (
        (CONFIG_FILE, (json.dumps(values, indent=2) + "\n").encode()),
        (CARD_FILE, card.encode()),
        (SENTENCES_FILE, packed),
        (WEIGHTS_FILE, save(tensors)),
    ):
        if content:
            files.write(folder / name, content)
        else:
            (folder / name).unlink(missing_ok=True)
