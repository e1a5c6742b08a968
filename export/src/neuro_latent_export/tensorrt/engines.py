"""Engines from ONNX graphs: parsed, given their profiles, built, and described for the manifest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuro_latent_export.backends import adapter_path
from neuro_latent_export.graphs import PROJECTOR_PATH, Sizes
from neuro_latent_export.plain import System
from neuro_latent_export.tensorrt.library import Library, TensorRTError
from neuro_latent_export.tensorrt.profiles import Profile, Range, profiles

SUFFIX = ".plan"


@dataclass(frozen=True)
class EngineTensor:
    """One input or output of an engine, as the manifest has it.

    Attributes:
        dtype: TensorRT's name of it, in lower case: ``int64``, ``float``, ``half``, ``bf16``.
        shape: -1 for an axis that the profiles decide.
        profiles: for an input, its least, usual and greatest shape in each profile. For a size (``is_size``) they are
            its values: such an input is read from the host's memory.
    """

    dtype: str
    shape: list[int]
    profiles: list[list[list[int]]]
    is_size: bool = False

    def as_json(self) -> dict[str, Any]:
        """For the manifest, without what an output does not have."""
        entry: dict[str, Any] = {"dtype": self.dtype, "shape": self.shape}
        if self.profiles:
            entry |= {"profiles": self.profiles, "is_size": self.is_size}
        return entry


@dataclass(frozen=True)
class BuiltEngine:
    """An engine of TensorRT: its bytes, and its tensors by name."""

    plan: bytes
    inputs: dict[str, EngineTensor]
    outputs: dict[str, EngineTensor]

    def as_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "inputs": {name: tensor.as_json() for name, tensor in self.inputs.items()},
            "outputs": {name: tensor.as_json() for name, tensor in self.outputs.items()},
        }


def plan_path(graph: str) -> str:
    """Where the engine of a graph goes in the repository; the adapter's lies where Triton's backend looks for it."""
    if graph == PROJECTOR_PATH:
        return str(adapter_path("tensorrt") / f"model{SUFFIX}")
    return str(Path(graph).with_suffix(SUFFIX))


def write_engines(
    library: Library, model: System, graphs: Path, target: Path, log: Callable[[str], None]
) -> dict[str, Any]:
    """Build an engine of each graph in the folder ``graphs`` into the repository ``target``; returns the facts of them.

    Raises:
        TensorRTError: a graph cannot be parsed or built.
    """
    log(f"{library.name} {library.version} builds for compute capability {library.compute_capability}")
    engines = {}
    most = model.encoder.max_tokens if model.encoder else 1
    for graph, its_profiles in profiles(Sizes.of(model), most).items():
        if not (graphs / graph).is_file():  # a T5 alone has not all of them
            continue
        path = plan_path(graph)
        log(f"building {path}")
        engine = build_engine(library, graphs / graph, its_profiles)
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes(engine.plan)
        engines[path] = engine.as_json()
    return {
        "library": library.name,
        "version": library.version,
        "compute_capability": library.compute_capability,
        "engines": engines,
    }


def build_engine(library: Library, graph: Path, its_profiles: Sequence[Profile]) -> BuiltEngine:
    """Build the engine of an ONNX graph; every tensor keeps the type that the graph gives it.

    Products of float32 are not rounded to TF32.

    Raises:
        TensorRTError: the graph cannot be parsed or built; the message has the library's own words.
    """
    trt, messages = library.module, _messages(library.module)
    builder = trt.Builder(messages)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, messages)
    if not parser.parse_from_file(str(graph)):
        raise _refusal(library, "read", graph, [parser.get_error(i).desc() for i in range(parser.num_errors)])
    _allow_decomposed_attention(trt, network)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    if library.target is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(library.target, 0)
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    for ranges in its_profiles:
        config.add_optimization_profile(_profile(builder.create_optimization_profile(), inputs, ranges))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _refusal(library, "build", graph, messages.errors)
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    return BuiltEngine(
        bytes(plan),
        {tensor.name: _described(tensor, its_profiles) for tensor in inputs},
        {tensor.name: _described(tensor, []) for tensor in outputs},
    )


def _refusal(library: Library, what: str, graph: Path, errors: Sequence[str]) -> TensorRTError:
    words = " ".join("; ".join(errors).split())
    return TensorRTError(f"{library.name} {library.version} cannot {what} {graph.name}: {words}")


def _messages(trt: Any) -> Any:
    """A logger that keeps errors and drops the rest."""

    class Messages(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(text)

    return Messages()


def _allow_decomposed_attention(trt: Any, network: Any) -> None:
    """Attention that no kernel of its own fits (in float32, say) is made of several; without this it is an error."""
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        if layer.type == trt.LayerType.ATTENTION_INPUT:
            layer.__class__ = trt.IAttentionInputLayer
            layer.attention.decomposable = True


def _profile(profile: Any, inputs: Sequence[Any], ranges: Profile) -> Any:
    for tensor in inputs:
        limits = _limits(tensor, ranges)
        (profile.set_shape_input if tensor.is_shape_tensor else profile.set_shape)(tensor.name, *limits)
    return profile


def _limits(tensor: Any, ranges: Profile) -> list[list[int]]:
    """Least, usual and greatest shape of an input; of one that is a size, its values."""
    if tensor.is_shape_tensor:
        axes = [ranges[tensor.name]]
    else:
        axes = [
            ranges[tensor.get_dimension_name(i)] if size == -1 else Range(size, size, size)
            for i, size in enumerate(tensor.shape)
        ]
    return [[axis.least for axis in axes], [axis.usual for axis in axes], [axis.most for axis in axes]]


def _described(tensor: Any, its_profiles: Sequence[Profile]) -> EngineTensor:
    return EngineTensor(
        dtype=tensor.dtype.name.lower(),
        shape=list(tensor.shape),
        profiles=[_limits(tensor, ranges) for ranges in its_profiles],
        is_size=bool(tensor.is_shape_tensor and its_profiles),
    )
