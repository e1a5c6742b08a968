"""What is read of a repository, asked, and told of the machine."""

from pathlib import Path

import pytest

from neuro_latent_benchmarks import hardware, pipeline, report
from neuro_latent_benchmarks.prompts import prompt_texts

ROOT = Path(__file__).parents[3]


def test_prompts_differ_and_begin_again() -> None:
    texts = prompt_texts(130)
    assert len(set(texts)) == 128
    assert texts[128:] == texts[:2]
    assert all(texts)


def test_parameters_of_a_model_are_read_from_its_config() -> None:
    exported = ROOT / "tests" / "unit" / "snapshots" / "export" / "python-cpu"
    found = pipeline.parameters(exported, "t5_decoder")
    assert found["slots"].isdigit()
    assert found["eos_id"] == "1"
    with pytest.raises(report.BenchError, match=r"no nothing/config\.pbtxt"):
        pipeline.parameters(exported, "nothing")


def test_a_heading_tells_machine_and_versions(capsys: pytest.CaptureFixture[str]) -> None:
    found = report.heading("decode", {"rounds": 3})
    assert found["hardware"]["cores"] >= 1
    assert found["hardware"]["cpu"]
    assert found["versions"]["onnxruntime"][0].isdigit()
    assert found["settings"] == {"rounds": 3}
    assert hardware.hardware()["memory_gib"] > 0
    captured = capsys.readouterr()
    assert captured.out == ""
