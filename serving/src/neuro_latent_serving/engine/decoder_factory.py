"""Which decoder runs a folder's graphs, by what was asked for and by what is there."""

from pathlib import Path
from typing import Literal

import onnxruntime as ort

from neuro_latent_serving.engine.contract import Decoder
from neuro_latent_serving.engine.device.device_decoder import DeviceDecoder
from neuro_latent_serving.engine.device.onnx import OnnxRuntime
from neuro_latent_serving.engine.host_decoder import HostDecoder
from neuro_latent_serving.errors import DeviceMissing
from neuro_latent_serving.sessions import CUDA, CUDA_INSTALL

DeviceName = Literal["cpu", "gpu"]

ENGINE = "step.plan"


def create_decoder(folder: Path, threads: int, slots: int, device: DeviceName, cuda_graphs: bool) -> Decoder:
    """The decoder of a folder: TensorRT where it holds engines, else ONNX Runtime.

    Args:
        folder: with ``prefill`` and ``step``, as ``.plan`` or ``.onnx``.
        threads: of what runs on the host.
        slots: the most rows that decode together.
        device: where the decoder runs.
        cuda_graphs: whether a GPU's steps are captured.

    Raises:
        DeviceMissing: the device, or what drives it, is not there.
    """
    engines = (folder / ENGINE).is_file()
    if device == "cpu":
        if engines:
            raise DeviceMissing(
                "the decoder of this repository is a TensorRT engine, which runs on a GPU only: set the parameter "
                "device of t5_decoder to gpu, or export with another --backend"
            )
        return HostDecoder(folder, threads, slots)
    if engines:
        from neuro_latent_serving.engine.device.tensorrt import TensorRtRuntime

        return DeviceDecoder(TensorRtRuntime(folder, cuda_graphs), slots)
    check_cuda()
    return DeviceDecoder(OnnxRuntime(folder, threads, cuda_graphs=cuda_graphs), slots)


def check_cuda() -> None:
    """Find out whether the installed ONNX Runtime was built for CUDA, and load the libraries that pip has brought.

    Raises:
        DeviceMissing: it was not.
    """
    there = ort.get_available_providers()
    if CUDA not in there:
        raise DeviceMissing(
            f"device is 'gpu', but the installed onnxruntime has no {CUDA} (only {', '.join(there)}). Install the one "
            f"for GPUs in its place ({CUDA_INSTALL}), or set the parameter device of t5_decoder to cpu"
        )
    ort.preload_dlls()
