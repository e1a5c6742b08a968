"""What of a repository is no graph: the configurations and programs of ``model_repository/``, tokenizers, sentences."""

import json
import string
from pathlib import Path

from neuro_latent_core.options import OPTIONS
from neuro_latent_export.backends import (
    ADAPTER_MODELS,
    GRAPH_MODELS,
    BackendName,
    DeviceName,
    backend_values,
    config_template,
)
from neuro_latent_export.errors import ExportError
from neuro_latent_export.graphs import Sizes
from neuro_latent_export.plain import System
from neuro_latent_export.warm_up import TOKENS, Tensors, full_batch, warm_up
from neuro_latent_trainer.model import MAX_SOURCE_TOKENS

TEMPLATES = Path(__file__).parent / "model_repository"
"""A link in the checkout, a folder in the wheel."""
PLAIN = "# with an adapter: "
"""``${adapted}`` of a T5 alone, which has neither an encoder of its own nor soft prompts: comments lines out."""
SENTENCES_PATH = "t5_decoder/1/frequent_sentences.json"


def template_values(
    model: System, model_version: str, backend: BackendName = "python", device: DeviceName = "cpu"
) -> dict[str, str]:
    """What ``${name}`` stands for in the ``config.pbtxt`` files."""
    sizes, t5 = Sizes.of(model), model.generator_model.config
    encoder_tokens, encoder_pad = 1, 0
    t5_inputs: Tensors = TOKENS
    if model.encoder:
        encoder_tokens, encoder_pad = model.encoder.max_tokens, model.encoder.tokenizer.pad_token_id
        t5_inputs = {"soft_prompts": ("TYPE_FP32", [sizes.soft_prompt_tokens, sizes.generator_width]), **TOKENS}
    return {
        "adapted": "" if model.adapter else PLAIN,
        "guard": str(model.adapter is not None).lower(),
        "prefix": json.dumps(model.generator.prefix, ensure_ascii=False)[1:-1],  # protobuf's text has these escapes too
        "encoder_width": str(sizes.encoder_width),
        "generator_width": str(sizes.generator_width),
        "soft_prompt_tokens": str(sizes.soft_prompt_tokens),
        "encoder_max_tokens": str(encoder_tokens),
        "encoder_pad_id": str(encoder_pad),
        "source_max_tokens": str(MAX_SOURCE_TOKENS),
        "source_pad_id": str(model.generator.pad_id),
        "decoder_start_id": str(t5.decoder_start_token_id),
        "eos_id": str(model.generator.eos_id),
        "model_version": model_version,
        "option_inputs": ",\n  ".join(
            f'{{ name: "{name}", data_type: TYPE_{option.triton_type}, dims: [ 1 ], optional: true }}'
            for name, option in OPTIONS.items()
        ),
        "option_maps": "\n      ".join(f'input_map {{ key: "{name}", value: "{name}" }}' for name in OPTIONS),
        "encoder_warm_up": warm_up(TOKENS, encoder_tokens),
        "encoder_full_batch": full_batch(TOKENS, encoder_tokens),
        "t5_encoder_warm_up": warm_up(t5_inputs, MAX_SOURCE_TOKENS),
        "t5_encoder_full_batch": full_batch(t5_inputs, MAX_SOURCE_TOKENS),
        **backend_values(backend, device, adapted=model.adapter is not None),
    }


def fill_templates(values: dict[str, str], target: Path, backend: BackendName = "python") -> None:
    """Copy the templates of a backend, with every ``${name}`` of the ``config.pbtxt`` files filled in.

    Raises:
        ExportError: a template names a value that does not exist.
    """
    for path in sorted(TEMPLATES.rglob("*")):
        relative = path.relative_to(TEMPLATES)
        if path.is_dir() or "__pycache__" in relative.parts or path.suffix not in (".pbtxt", ".py"):
            continue
        is_graph = relative.parts[0] in GRAPH_MODELS
        if values.get("adapted") and relative.parts[0] in ADAPTER_MODELS:
            continue
        if path.suffix == ".py" and is_graph and backend != "python":
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".pbtxt":
            if path.name != (config_template(backend) if is_graph else "config.pbtxt"):
                continue
            try:
                text = string.Template(text).substitute(values)
            except (KeyError, ValueError) as error:
                raise ExportError(f"{relative}: cannot fill the template: {error}") from None
            relative = relative.with_name("config.pbtxt")
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        (target / relative).write_text(text, encoding="utf-8")
    for ensemble in ("neuro_latent_optimizer", "neuro_latent_optimizer_stream"):
        (target / ensemble / "1").mkdir(exist_ok=True)  # Triton wants a version folder, even an empty one


def write_texts(model: System, target: Path) -> list[str]:
    """The tokenizers as plain ``tokenizer.json`` files, without their padding and truncation settings, and the
    adapter's frequent sentences, which a new server drafts from; returns the files, relative to ``target``."""
    written = []
    tokenizers = {
        "tokenizer/1/generator_tokenizer.json": model.generator.tokenizer,
        "t5_decoder/1/generator_tokenizer.json": model.generator.tokenizer,
    }
    if model.encoder:
        tokenizers["tokenizer/1/encoder_tokenizer.json"] = model.encoder.tokenizer
    for relative, tokenizer in tokenizers.items():
        spec = json.loads(tokenizer.backend_tokenizer.to_str())
        spec["padding"] = spec["truncation"] = None
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        (target / relative).write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
        written.append(relative)
    if model.sentences:
        (target / SENTENCES_PATH).write_text(json.dumps(model.sentences, ensure_ascii=False), encoding="utf-8")
        written.append(SENTENCES_PATH)
    return written
