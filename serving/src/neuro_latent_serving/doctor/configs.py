"""Each model's ``config.pbtxt`` by itself: complete without Triton's help, bounded, and what callers expect."""

from collections.abc import Iterator, Mapping

from tritonclient.grpc import model_config_pb2 as schema

from neuro_latent_core.protocol import (
    CANCEL_INPUT,
    CANCEL_MODEL,
    FEEDBACK_INPUT_TYPES,
    FEEDBACK_MODEL,
    FEEDBACK_OUTPUT_TYPES,
    INPUT_TYPES,
    OUTPUT_TYPES,
    RAW_PROMPT,
    STREAM_MODEL,
    STREAM_OUTPUT_TYPES,
    UNARY_MODEL,
    TritonType,
)
from neuro_latent_serving.doctor.catalogue import Finding, Outcome
from neuro_latent_serving.doctor.repository import CONFIG, MODEL_FILES, ONNXRUNTIME, TENSORRT, Model, Repository, Tensor
from neuro_latent_serving.doctor.subject import Subject

Types = Mapping[str, TritonType]

CONTRACT: dict[str, tuple[Types, set[str], Types]] = {
    UNARY_MODEL: (INPUT_TYPES, {RAW_PROMPT}, OUTPUT_TYPES),
    STREAM_MODEL: (INPUT_TYPES, {RAW_PROMPT}, STREAM_OUTPUT_TYPES),
    FEEDBACK_MODEL: (
        FEEDBACK_INPUT_TYPES,
        {"request_id", "raw_prompt", "enhanced_prompt", "rating"},
        FEEDBACK_OUTPUT_TYPES,
    ),
    CANCEL_MODEL: ({CANCEL_INPUT: "BYTES"}, set(), {}),
}
"""The models that callers ask: their inputs, which of these every request has, their outputs."""

DECOUPLED = {CANCEL_MODEL}
GRAPH_MODELS = ("encoder", "projector", "t5_encoder")


def check(subject: Subject) -> Iterator[Outcome]:
    """All configurations of the repository."""
    repository = subject.repository
    if repository is None:
        return
    if repository.problem is not None:
        yield Finding("repository-empty", "repository", repository.problem.message, repository.problem.hint)
        return
    for name, why in repository.unreadable.items():
        yield Finding("config-unreadable", f"{name}/{CONFIG}", why, repository.export_again)
    for name in (UNARY_MODEL, STREAM_MODEL, FEEDBACK_MODEL):
        if name not in repository.names:
            yield Finding("model-missing", name, "callers ask for it", repository.export_again)
    for model in repository.models.values():
        yield from check_model(model, repository)
    yield f"{len(repository.models)} configurations"


def check_model(model: Model, repository: Repository) -> Iterator[Finding]:
    """One of them."""
    where, config, again = f"{model.name}/{CONFIG}", model.config, repository.export_again
    if config.name != model.name:
        mend = f'Write name: "{model.name}", or rename the folder.'
        yield Finding("config-name", where, f'name: "{config.name}", in the folder {model.name}', mend)
    if not model.is_ensemble and model.backend not in MODEL_FILES:
        id_ = "config-backend" if model.backend or config.platform else "backend-implicit"
        known = ", ".join(f'"{name}"' for name in MODEL_FILES)
        what = f'backend: "{model.backend}", platform: "{config.platform}"'
        yield Finding(id_, where, what, f'Write backend: {known}, or platform: "ensemble".')
    if config.max_batch_size < 1:
        what = f"max_batch_size: {config.max_batch_size}; every tensor has the batch as its first axis"
        yield Finding("config-batch", where, what, "max_batch_size: 16, in all models.")
    yield from check_tensors(model, where, again)
    yield from check_contract(model, where, again)
    if (model.name in DECOUPLED) != config.model_transaction_policy.decoupled:
        value = str(model.name in DECOUPLED).lower()
        yield Finding(
            "decoupled-wrong",
            where,
            f"must say decoupled: {value}",
            f"model_transaction_policy {{ decoupled: {value} }}",
        )
    if not config.HasField("version_policy"):
        yield Finding("versions-implicit", where, "no version_policy", "version_policy { latest { num_versions: 1 } }")
    if not model.is_ensemble:
        yield from check_instances(model, where)
    yield from check_queue(model, where)


def check_tensors(model: Model, where: str, again: str) -> Iterator[Finding]:
    """Every input and output has a name of its own, a type and a shape."""
    for kind, listed in (("input", model.config.input), ("output", model.config.output)):
        if not listed:
            yield Finding("config-tensors", where, f"no {kind}", again)
        names = [tensor.name for tensor in listed]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield Finding("config-tensors", where, f"{kind} {name} is listed twice", again)
        for tensor in listed:
            if tensor.data_type == schema.TYPE_INVALID or not tensor.dims or any(d == 0 or d < -1 for d in tensor.dims):
                what = f"{kind} {tensor.name or '(no name)'}: no data_type, or dims that are no shape"
                yield Finding("config-tensors", where, what, again)


def check_contract(model: Model, where: str, again: str) -> Iterator[Finding]:
    """What clients send and read."""
    inputs, always, outputs = CONTRACT.get(model.name, ({}, set(), {}))
    for kind, expected, listed in (("input", inputs, model.inputs), ("output", outputs, model.outputs)):
        for name, type_ in expected.items():
            if problem := broken_promise(listed.get(name), type_, optional=kind == "input" and name not in always):
                yield Finding("contract-broken", where, f"{kind} {name} {problem}", again)


def broken_promise(tensor: Tensor | None, type_: TritonType, *, optional: bool) -> str:
    """What is wrong with a public tensor; empty for nothing."""
    expected = "TYPE_STRING" if type_ == "BYTES" else f"TYPE_{type_}"
    if tensor is None:
        return "is missing"
    if tensor.type != expected:
        return f"is {tensor.type}, not {expected}"
    return f"must {'' if optional else 'not '}be optional" if tensor.optional != optional else ""


def check_instances(model: Model, where: str) -> Iterator[Finding]:
    """How many there are and where they run is written down."""
    groups = model.config.instance_group
    automatic = schema.ModelInstanceGroup.KIND_AUTO
    if not groups or any(group.kind == automatic or group.count < 1 for group in groups):
        mend = "instance_group [ { count: 1, kind: KIND_CPU } ] (or KIND_GPU)"
        yield Finding("instances-implicit", where, "no instance_group with count and kind", mend)


def check_queue(model: Model, where: str) -> Iterator[Finding]:
    """What waits for a model is bounded where that costs nothing, and shares batches."""
    config = model.config
    if config.HasField("dynamic_batching") and model.backend in (ONNXRUNTIME, TENSORRT):
        if config.dynamic_batching.HasField("default_queue_policy"):
            what = "a default_queue_policy; requests of other lengths then wait for up to half a second"
            yield Finding("queue-stalls", where, what, "dynamic_batching { }: the decoder bounds what waits.")
    elif config.HasField("dynamic_batching"):
        policy = config.dynamic_batching.default_queue_policy
        mend = "default_queue_policy { timeout_action: REJECT, max_queue_size: 256 }"
        if policy.max_queue_size < 1:
            yield Finding("queue-unbounded", where, "dynamic_batching without a max_queue_size", mend)
        if policy.timeout_action != schema.ModelQueuePolicy.REJECT:
            yield Finding("queue-delays", where, "timeout_action is not REJECT", mend)
    elif model.name in GRAPH_MODELS and config.max_batch_size > 1:
        yield Finding("batching-off", where, "no dynamic_batching", "Triton can run waiting requests as one batch.")
    if model.backend in (ONNXRUNTIME, TENSORRT) and not config.model_warmup:
        yield Finding("warmup-missing", where, "no model_warmup", "Add one with real shapes; python models warm up.")
