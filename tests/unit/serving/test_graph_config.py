"""A configuration against its graph: what Triton's onnxruntime backend would refuse."""

from dataclasses import dataclass
from typing import Any

import pytest

from neuro_latent_serving.triton.graph_config import ConfigError, check_config


@dataclass
class Node:
    name: str
    type: str
    shape: list[int | str | None]


INPUTS = [Node("ids", "tensor(int64)", ["batch", "tokens"])]
OUTPUTS = [Node("vector", "tensor(float)", ["batch", 4]), Node("unused", "tensor(float)", [])]


def config(**changes: Any) -> dict[str, Any]:
    """As Triton gives it to a model: sizes are texts, settings that are not given are false."""
    tensor = {"name": "ids", "data_type": "TYPE_INT64", "dims": ["-1"], "allow_ragged_batch": False, "optional": False}
    output = {"name": "vector", "data_type": "TYPE_FP32", "dims": ["4"]}
    return {"max_batch_size": 8, "input": [tensor | changes], "output": [output]}


def test_a_configuration_that_fits_passes() -> None:
    check_config(config(), INPUTS, OUTPUTS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "tokens"}, "the graph has the inputs ids, which the configuration leaves out"),
        ({"data_type": "TYPE_INT32"}, "input ids: TYPE_INT32, and the graph has TYPE_INT64"),
        ({"dims": ["7"]}, r"input ids: dimensions \[-1, 7\], and the graph has \[-1, -1\]"),
        ({"dims": ["-1", "-1"]}, "input ids: dimensions"),
        ({"allow_ragged_batch": True}, "allow_ragged_batch is not possible"),
        ({"optional": True}, "optional is not possible"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_config(config(**changes), INPUTS, OUTPUTS)


def test_everything_that_does_not_fit_is_named() -> None:
    with pytest.raises(ConfigError, match=r"input ids: TYPE_BF16, .*; input ids: dimensions"):
        check_config(config(data_type="TYPE_BF16", dims=["7"]), INPUTS, OUTPUTS)
    check_config(config(data_type="TYPE_BF16"), [Node("ids", "tensor(bfloat16)", ["batch", "tokens"])], OUTPUTS)


def test_an_output_that_the_graph_has_not_and_a_fixed_batch_are_named() -> None:
    with pytest.raises(ConfigError, match="output vector: the graph has none of that name, only unused"):
        check_config(config(), INPUTS, OUTPUTS[1:])
    with pytest.raises(ConfigError, match="needs a variable first dimension"):
        check_config(config(), [Node("ids", "tensor(int64)", [1, "tokens"])], OUTPUTS)
