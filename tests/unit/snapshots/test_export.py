"""What an export writes beside graphs and engines: configurations, manifest, adapter record, and the list of its files.

The variant ``python-cpu`` has all of these; of any other there are only the files that differ from those of the
variant that is named in ``VARIANTS``.
"""

import re
from pathlib import Path
from typing import Any

import pytest

from neuro_latent_export import parity
from neuro_latent_export import repository as repository_module
from neuro_latent_export.agreement import Agreement
from neuro_latent_export.graphs import ENCODER_PATHS, PROJECTOR_PATH
from neuro_latent_export.job import Job
from neuro_latent_export.parity import DECODER_PATHS, GenerationParity, GraphParity
from neuro_latent_export.precision import FP32, INT8
from neuro_latent_export.repository import export_repository
from neuro_latent_export.tensorrt import engines
from neuro_latent_export.tensorrt.engines import BuiltEngine, EngineTensor
from neuro_latent_export.tensorrt.library import Library
from tests import tiny
from tests.unit.snapshots.conftest import Compare

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "python-cpu": ("", {}),
    "python-cpu-complement": ("python-cpu", {}),
    "python-cpu-int8": ("python-cpu", {"precision": INT8}),
    "python-gpu": ("python-cpu", {"device": "gpu"}),
    "onnxruntime-cpu": ("python-cpu", {"backend": "onnxruntime"}),
    "onnxruntime-gpu": ("onnxruntime-cpu", {"backend": "onnxruntime", "device": "gpu"}),
    "tensorrt-gpu": ("onnxruntime-cpu", {"backend": "tensorrt"}),
}
"""Of each variant, the one that it is stored as changes of, and its options."""

CHANGING = (
    (r"\b[0-9a-f]{64}\b", "SHA256"),
    (r"\bpair\d+-[0-9a-f]{12}\b", "PAIR-HASH"),
    (r'(?<="created": )"[^"]+"', '"DATE"'),
    (r'(?<="bytes": )\d+', "0"),
    (r'(?<=": )"\d+\.\d+\.\d[^"]*"', '"VERSION"'),
)
"""What differs from machine to machine or from day to day, and what stands for it."""


@pytest.fixture(autouse=True)
def no_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports write empty graphs and engines, and say that these are right."""

    def write_graphs(job: Job, model: Any, folder: Path, dialect: str) -> Any:
        paths = (*ENCODER_PATHS, PROJECTOR_PATH, *DECODER_PATHS)
        for path in paths:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).touch()
        compared = parity.as_json([GraphParity(path, 0.0) for path in paths], GenerationParity(64, 64, 48))
        return compared, None if job.precision == FP32 else Agreement("data", 32, 640, 2.0, 2.0, 1.0, 48, 1.0, 1.0)

    def build_engine(library: Library, graph: Path, profiles: Any) -> BuiltEngine:
        """An engine with an input for each axis of its profiles."""
        inputs = {
            axis: EngineTensor("int64", [-1], [[[r.least], [r.usual], [r.most]] for r in (p[axis] for p in profiles)])
            for axis in profiles[0]
        }
        return BuiltEngine(b"", inputs, {"output": EngineTensor("float", [-1], [])})

    monkeypatch.setattr(repository_module, "write_graphs", write_graphs)
    monkeypatch.setattr(engines, "build_engine", build_engine)
    monkeypatch.setattr(repository_module, "open_tensorrt", lambda: Library("TensorRT", "10.15.1", "8.9", None))


def read(repository: Path, pair: Any) -> dict[str, str]:
    """The texts of a repository by their paths, with what changes replaced."""
    files = sorted(path for path in repository.rglob("*") if path.is_file())
    texts = {"files.txt": "".join(f"{path.relative_to(repository)}\n" for path in files)}
    for path in files:
        if path.suffix == ".pbtxt" or path.name in ("manifest.json", "adapter.json"):
            text = path.read_text(encoding="utf-8").replace(str(pair.encoder.parent), "PAIR")
            for pattern, replacement in CHANGING:
                text = re.sub(pattern, replacement, text)
            texts[str(path.relative_to(repository))] = text
    return texts


def test_the_texts_of_every_kind_of_repository(compare: Compare, adapter: Path, pair: Any, tmp_path: Path) -> None:
    complement = tiny.write_adapter(tmp_path / "complement", pair.encoder, pair.generator, form="complement")
    texts: dict[str, dict[str, str]] = {"": {}}
    made = {}
    for variant, (like, options) in VARIANTS.items():
        export_repository(complement if "complement" in variant else adapter, tmp_path / variant, **options)
        texts[variant] = read(tmp_path / variant, pair)
        changed = texts[variant].items() - texts[like].items()
        made |= {f"{variant}/{name}": text for name, text in changed}
    compare(made)
