"""Which systems are compared, and how the process of each is started."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from research.baselines import worker
from research.baselines.process import WorkerProcess
from research.synthetic.shapes import Models

OURS, PLAIN, EXACT = "ours", "ours_plain", "ours_fp32"
HF, OPTIMUM, CT2_FLOAT, CT2_INT8 = "hf_eager", "optimum_onnx", "ct2_float32", "ct2_int8"

BASELINES: Final = (HF, OPTIMUM, CT2_FLOAT, CT2_INT8)
ENGINES: Final = (OURS, PLAIN, EXACT)

TITLES: Final = {
    OURS: "this engine",
    PLAIN: "this engine, no speculation",
    EXACT: "this engine, fp32",
    HF: "Hugging Face eager",
    OPTIMUM: "optimum-onnx",
    CT2_FLOAT: "CTranslate2 float32",
    CT2_INT8: "CTranslate2 int8",
}


@dataclass(frozen=True, slots=True)
class Systems:
    """Starts workers for one pair of models.

    Attributes:
        baselines_python: interpreter of the baselines' environment.
        repository: exported with the precision that is compared.
        exact_repository: exported with fp32.
        states: encoder states for our engine, see :func:`shapes.encoder_states`.
    """

    models: Models
    baselines_python: Path
    repository: Path
    exact_repository: Path
    states: Path

    def start(self, name: str, threads: int, **more: Any) -> WorkerProcess:
        """Start a system and load its models, converted on first use."""
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
        python = sys.executable if name == HF else str(self.baselines_python)
        load: dict[str, Any] = {"folder": str(self.models.numbered), "threads": threads}
        if name in (CT2_FLOAT, CT2_INT8):
            quantization = name.removeprefix("ct2_")
            converted = str(self.models.folder / f"ct2-{quantization}")
            load |= {"system": "ctranslate2", "quantization": quantization, "converted": converted}
        else:
            load |= {"system": "huggingface"}
            if name == OPTIMUM:
                load |= {"converted": str(self.models.folder / "optimum-onnx")}
        return [python, worker.__file__], load
