"""What an export is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from neuro_latent_export.agreement import CheckData
from neuro_latent_export.backends import BackendName, DeviceName
from neuro_latent_export.precision import FP32, Precision


@dataclass(frozen=True)
class Job:
    """One export: of what, where to, and how.

    Attributes:
        adapter: an adapter folder, or a training run; None exports a T5 alone.
        output: the folder of the repository, or of the adapter alone.
        encoder: frozen encoder, if not the one that the adapter names.
        generator: likewise; without an adapter, the T5.
        prefix: without an adapter, the text that the T5 was fine-tuned to read before every prompt.
        precision: how weights are stored.
        backend: what runs the encoder, the projector and the T5 encoder.
        device: where the decoder runs, and with Triton's own backends all else too (the backend ``python`` has the
            encoders on the CPU in any case); None takes the backend's usual one.
        tensorrt_rtx: build the engines of the backend ``tensorrt`` with TensorRT-RTX for GPUs of this compute
            capability (``8.9``), which need not be at hand: for checks, since Triton does not load such engines.
        check_data: what a quantized repository is compared with float32 on; None takes the prompts of the
            project's own sample, with what float32 writes for them.
        force: replace a repository to which adapters were added, too; they are lost.
        log: told of each stage.
        progress: told how far a long stage is.
    """

    adapter: Path | None
    output: Path
    encoder: str | None = None
    generator: str | None = None
    prefix: str = ""
    precision: Precision = FP32
    backend: BackendName = "python"
    device: DeviceName | None = None
    tensorrt_rtx: str | None = None
    check_data: CheckData | None = None
    force: bool = False
    log: Callable[[str], None] = lambda text: None
    progress: Callable[[str], None] = lambda text: None
