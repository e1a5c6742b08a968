"""Tokenizers and special tokens: prompts are read and texts written with one vocabulary."""

from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer

from neuro_latent_serving.doctor.catalogue import Finding, Outcome
from neuro_latent_serving.doctor.repository import CONFIG, Model, Repository
from neuro_latent_serving.doctor.subject import Subject

GENERATOR, ENCODER = "generator_tokenizer.json", "encoder_tokenizer.json"

SPECIAL = (
    ("tokenizer", "encoder_pad_id", ENCODER),
    ("tokenizer", "source_pad_id", GENERATOR),
    ("t5_decoder", "decoder_start_id", GENERATOR),
    ("t5_decoder", "eos_id", GENERATOR),
)
"""Model, its parameter with a token's id, the tokenizer of that model that has to know the id."""


def check(subject: Subject) -> Iterator[Outcome]:
    """The tokenizers of the tokenizer model and of the decoder."""
    repository = subject.repository
    if repository is None:
        return
    models = [repository.models[name] for name in ("tokenizer", "t5_decoder") if name in repository.models]
    opened: dict[Path, Tokenizer] = {}
    for file in (file for model in models for file in tokenizer_files(model) if repository.is_sound(file)):
        try:
            opened[file] = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises plain exceptions
            where = file.relative_to(repository.root).as_posix()
            yield Finding("tokenizer-unreadable", where, str(error)[:300], repository.export_again)
    yield from check_equal(opened, repository)
    for model_name, parameter, file_name in SPECIAL:
        model = repository.models.get(model_name)
        tokenizer = opened.get(model.served / file_name) if model and model.served else None
        if model is not None and tokenizer is not None:
            yield from check_token(model, parameter, tokenizer, repository)
    yield f"{len(opened)} tokenizers"


def tokenizer_files(model: Model) -> list[Path]:
    """Those of the version that is served."""
    return sorted(model.served.glob("*tokenizer.json")) if model.served else []


def check_equal(opened: dict[Path, Tokenizer], repository: Repository) -> Iterator[Finding]:
    """What T5 reads and what it writes have the same ids."""
    same = [file for file in opened if file.name == GENERATOR]
    if len({opened[file].to_str() for file in same}) > 1:
        names = " and ".join(file.relative_to(repository.root).as_posix() for file in same)
        yield Finding("tokenizer-differs", names, "they are not the same", repository.export_again)


def check_token(model: Model, parameter: str, tokenizer: Tokenizer, repository: Repository) -> Iterator[Finding]:
    """The parameter's token is one of the tokenizer's."""
    text = model.parameters.get(parameter, "")
    if text.isdecimal() and tokenizer.id_to_token(int(text)) is None:
        what = f"{parameter} is {text}, and the vocabulary has no such token"
        yield Finding("token-unknown", f"{model.name}/{CONFIG}", what, repository.export_again)
