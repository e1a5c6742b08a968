"""Which systems are compared, and how the process of each is started."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from neuro_latent_benchmarks.report import BenchError
from research.baselines import worker
from research.baselines.environment import BASELINES as BASELINES_ENVIRONMENT
from research.baselines.environment import LLAMA, OPENVINO
from research.baselines.process import WorkerProcess
from research.synthetic.shapes import Models

OURS, PLAIN, EXACT = "ours", "ours_plain", "ours_fp32"
HF, COMPILED, OPTIMUM, CT2_FLOAT, CT2_INT8 = "hf_eager", "torch_compile", "optimum_onnx", "ct2_float32", "ct2_int8"

ENGINES: Final = (OURS, PLAIN, EXACT)
NEEDED: Final = (HF, CT2_INT8)
"""Baselines without which there are no ratios: a run ends where one of them fails. Others are left out."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """A system beside ours.

    Attributes:
        title: in tables.
        environment: of :mod:`environment`; empty is this project's own.
        load: fields of its ``load`` question.
        converted: where its own form of the weights is kept, below the models' folder; empty where it has none.
    """

    title: str
    environment: str
    load: Mapping[str, str]
    converted: str = ""


def _huggingface(title: str, environment: str, runtime: str, converted: str = "") -> Baseline:
    return Baseline(title, environment, {"system": "huggingface", "runtime": runtime}, converted)


def _ctranslate2(quantization: str) -> Baseline:
    load = {"system": "ctranslate2", "quantization": quantization}
    return Baseline(f"CTranslate2 {quantization}", BASELINES_ENVIRONMENT, load, f"ct2-{quantization}")


def _llama(quantization: str) -> Baseline:
    load = {"system": "llama", "quantization": quantization}
    return Baseline(f"llama.cpp {quantization}", LLAMA, load, f"llama-{quantization}")


BASELINES: Final = {
    HF: _huggingface("Hugging Face eager", "", "eager"),
    COMPILED: _huggingface("Hugging Face, torch.compile", "", "compiled"),
    OPTIMUM: _huggingface("optimum-onnx", BASELINES_ENVIRONMENT, "onnx", "optimum-onnx"),
    "openvino": _huggingface("OpenVINO fp32", OPENVINO, "openvino", "openvino"),
    "openvino_int8": _huggingface("OpenVINO int8 weights", OPENVINO, "openvino-int8", "openvino-int8"),
    CT2_FLOAT: _ctranslate2("float32"),
    CT2_INT8: _ctranslate2("int8"),
    "llama_f32": _llama("f32"),
    "llama_q8_0": _llama("q8_0"),
    "llama_q4_0": _llama("q4_0"),
}
"""All that are compared, by name."""

TITLES: Final = {
    OURS: "this engine",
    PLAIN: "this engine, no speculation",
    EXACT: "this engine, fp32",
    **{name: baseline.title for name, baseline in BASELINES.items()},
}


@dataclass(frozen=True, slots=True)
class Systems:
    """Starts workers for one pair of models.

    Attributes:
        pythons: interpreter of each environment, or why there is none.
        repository: exported with the precision that is compared.
        exact_repository: exported with fp32.
        states: encoder states for our engine, see :func:`shapes.encoder_states`.
    """

    models: Models
    pythons: Mapping[str, Path | BenchError]
    repository: Path
    exact_repository: Path
    states: Path

    def start(self, name: str, threads: int, **more: Any) -> WorkerProcess:
        """Start a system and load its models, converted on first use.

        Raises:
            BenchError: its environment could not be made, or it does not load.
        """
        command, load = self._command(name, threads)
        return WorkerProcess(TITLES[name], command, {**load, **more})

    def _command(self, name: str, threads: int) -> tuple[list[str], dict[str, Any]]:
        if name in ENGINES:
            repository = self.exact_repository if name == EXACT else self.repository
            return [sys.executable, "-m", "research.baselines.ours"], {
                "folder": str(repository),
                "threads": threads,
                "states": str(self.states),
                "numbers": str(self.models.numbers),
                "speculation": name == OURS,
            }
        baseline = BASELINES[name]
        python = self.pythons[baseline.environment] if baseline.environment else sys.executable
        if isinstance(python, BenchError):
            raise python
        load: dict[str, Any] = {"folder": str(self.models.numbered), "threads": threads, **baseline.load}
        if baseline.converted:
            load["converted"] = str(self.models.folder / baseline.converted)
        return [str(python), worker.__file__], load
