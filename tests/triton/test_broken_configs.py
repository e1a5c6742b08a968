"""What is wrong in a configuration is told by the start of a server, in a line that names the model."""

import shutil
from pathlib import Path

import pytest

from neuro_latent_core.protocol import UNARY_MODEL
from neuro_latent_serving.launch import FREE_PORTS, ServeError, ServerConfig, TritonServer

SLOTS = 'key: "slots", value { string_value: "%s" }'
SPECULATION = 'key: "speculation", value { string_value: "%s" }'


@pytest.mark.server
@pytest.mark.parametrize(
    ("model", "old", "new", "told"),
    [
        (
            "t5_decoder",
            SLOTS % 16,
            SLOTS % "many",
            "model t5_decoder: ValueError: parameter slots of config.pbtxt must be a whole number from 0 on",
        ),
        (
            "t5_decoder",
            SPECULATION % "true",
            SPECULATION % "yes",
            "model t5_decoder: ValueError: parameter speculation of config.pbtxt must be true or false, not 'yes'",
        ),
        (
            UNARY_MODEL,
            'input_map { key: "attention_mask", value: "t5_mask" }',
            'input_map { key: "attention_mask", value: "mask" }',
            "one of its depending tensors, 'mask', is not connected",
        ),
        ("encoder", "name:", "nam:", "Poll failed for model directory 'encoder': failed to read text proto"),
    ],
    ids=["a number", "a switch", "an ensemble", "no configuration"],
)
def test_a_broken_configuration_is_told(
    model: str, old: str, new: str, told: str, repository: Path, tmp_path: Path
) -> None:
    spoilt = Path(shutil.copytree(repository, tmp_path / "repository"))
    file = spoilt / model / "config.pbtxt"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(ServeError) as caught:
        TritonServer(spoilt, ServerConfig(ports=FREE_PORTS, log_file=tmp_path / "log")).start()
    assert told in caught.value.message
