"""The comparison with baselines: turns, ratios and JSON of made-up systems; the protocol with a real process."""

import json
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from neuro_latent_benchmarks import report
from neuro_latent_benchmarks.report import BenchError
from research.baselines import batching, compare, environment, systems
from research.baselines import report as tables
from research.baselines.process import WorkerProcess
from research.synthetic.shapes import Models

PROMPTS = [[7, 8, 9, 1], [4, 5, 6, 1]]
MILLISECONDS = {"ours": 1.0, "ours_plain": 2.0, "hf_eager": 30.0, "ct2_float32": 7.0, "ct2_int8": 5.0}


class FakeWorker:
    """Takes 100 ms a call and a fixed time a token, and writes its prompt again and again."""

    def __init__(self, name: str, told: list[str], wrong: bool = False) -> None:
        self._name, self._told, self._wrong = name, told, wrong

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        assert op == "generate"
        self._told.append(self._name)
        count = fields["new_tokens"]
        tokens = (fields["ids"] * count)[:count]
        tokens[-1] = -1 if self._wrong else tokens[-1]
        return {"seconds": 0.1 + count * MILLISECONDS[self._name] / 1000, "tokens": tokens}


def config(**more: Any) -> compare.ComparisonConfig:
    return compare.ComparisonConfig("tiny", "fp32", 2, rounds=3, **more)


def scenario(told: list[str] | None = None) -> dict[str, Any]:
    told = [] if told is None else told
    workers: Any = {name: FakeWorker(name, told, wrong=name == "ct2_int8") for name in MILLISECONDS}
    turns = compare.take_turns(workers, PROMPTS, config(), lambda text: None, settle_s=0)
    return compare.summary(turns, PROMPTS)


def test_systems_alternate_round_by_round_after_a_warm_up() -> None:
    told: list[str] = []
    scenario(told)
    one_round = [name for name in MILLISECONDS for _ in range(2)]
    assert told == one_round * 4  # there are two prompts to warm up with, and three rounds


def test_the_time_of_a_token_has_no_share_of_the_call() -> None:
    found = scenario()
    assert {name: spread["median"] for name, spread in found["per_token_ms"].items()} == pytest.approx(MILLISECONDS)
    assert found["call_ms"]["ours"]["median"] == pytest.approx(164)
    assert compare.ratio(found, "ct2_int8", "ours_plain") == 2.5


def test_tokens_are_compared_text_by_text() -> None:
    found = scenario()
    assert found["identical"] == {
        "ours = hf_eager": 1.0,
        "ours = ours_plain": 1.0,
        "ct2_float32 = hf_eager": 1.0,
        "ct2_int8 = hf_eager": 0.0,
    }
    assert found["same_start"]["ct2_int8 = hf_eager"] == pytest.approx(63 / 64, abs=1e-4)
    assert found["copied"] > 0.7
    same = compare.identical_tokens({"one_client": found})
    assert same["one_client: ours = hf_eager"] is True
    assert same["one_client: ct2_int8 = hf_eager"] == 0.0


def many_clients() -> dict[str, Any]:
    tried = batching.strategies(2)
    results = {name: [100.0, 110.0, 120.0] for name in tried}
    results |= {batching.OURS: [300.0], "sorted, 8": [150.0], "equal lengths, 32": [900.0]}
    results |= {"equal work, up to 8, 2 at a time": [200.0]}
    return batching.batching_summary(results, tried)


def test_equal_work_is_a_comparison_of_its_own() -> None:
    found = many_clients()
    assert found["best_equal_work"] == "equal work, up to 8, 2 at a time"
    assert found["equal_work_speed_up"] == 1.5
    assert [name for name in batching.strategies(1) if "equal work" in name] == ["equal work, up to 16"]


class Part:
    """A tokenizer or an encoder that does nothing."""

    ids: tuple[int, ...] = ()

    def encode(self, text: str) -> "Part":
        return self

    def forward_batch(self, rows: Any) -> None:
        pass


def test_equal_work_answers_all_in_the_order_of_arrival_and_clients_wait_for_their_answers() -> None:
    ran: list[list[int]] = []

    def translate(tokens: list[Any], longest: int, callback: Any) -> list[Any]:
        lengths = [0] * len(tokens)
        for step in range(longest):
            for row in range(len(tokens)):
                if not lengths[row] and callback(SimpleNamespace(step=step, batch_id=row)):
                    lengths[row] = step + 1
        ran.append(lengths)
        return []

    system: Any = object.__new__(systems.worker.CTranslate2)
    system._encoder = system._reader = system._writer = Part()
    system._tokens, system._translate, system._translators = list, translate, 2
    requests = [("text", length) for length in batching.lengths(40)]
    assert system.requests(requests, clients=4, size=3)["seconds"] > 0
    assert sorted(length for batch in ran for length in batch) == sorted(length for _, length in requests)
    assert max(map(len, ran)) <= 3
    system._translators = 1
    ran.clear()
    system.requests(requests, clients=4, size=8)
    assert [len(batch) for batch in ran] == [4] * 10  # never more than there are clients
    assert sorted(ran[0]) == sorted(length for _, length in requests[:4])

    def fails(*args: Any, **more: Any) -> None:
        raise ValueError("no")

    system._translate, system._translators = fails, 2
    with pytest.raises(ValueError, match="no"):
        system.requests(requests, clients=1, size=1)


def test_equal_lengths_do_not_count_as_a_strategy() -> None:
    found = many_clients()
    assert found["best_static_batching"] == "sorted, 8"
    assert found["static_batching_speed_up"] == 2.0
    assert found["tokens_per_second"]["equal lengths, 32"]["median"] == 900


def test_batches_hold_every_request_once() -> None:
    rows = [([i], length) for i, length in enumerate(batching.lengths(21))]
    for by_length in (False, True):
        groups = batching.grouped(rows, 8, by_length)
        assert [len(group) for group in groups] == [8, 8, 5]
        assert sorted(row for group in groups for row in group) == sorted(rows)
    assert [row[1] for group in groups for row in group] == sorted((row[1] for row in rows), reverse=True)
    assert batching.lengths(21) == batching.lengths(64)[:21]
    assert all(16 <= length <= 128 for length in batching.lengths(500))


def test_one_core_has_no_two_batches_at_a_time() -> None:
    assert all(strategy.translators == 1 for strategy in batching.strategies(1).values())


def test_the_json_has_the_ratios_and_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    scenarios = {"one_client": scenario(), "copy_heavy": scenario()}
    left_out = {"llama_q4_0": "no compiler"}
    result = {"settings": {"clients": 16}}
    result |= tables.result_json(scenarios, many_clients(), {"ct2_int8": 2}, left_out)
    assert result["ratios"] == {
        "ct2_int8_one_client": 2.5,
        "ct2_int8_one_client_speculating": 5.0,
        "hf_eager_one_client": 15.0,
        "ct2_int8_copy_heavy": 5.0,
        "ct2_int8_static_batch_c16": 2.0,
        "ct2_equal_work_c16": 1.5,
    }
    assert result["left_out"] == left_out
    assert result["per_token_ms"]["hf_eager"] == pytest.approx(30)
    tables.show(result)
    report.json_line(result)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["identical_tokens"]["copy_heavy: ours = hf_eager"] is True


WORKER = """
    import sys
    from pathlib import Path
    sys.path.insert(0, {folder!r})
    import worker

    class System:
        versions = {{"it": "1"}}
        def __init__(self, start):
            print("a library talks")
            self.count = start
        def add(self, more):
            self.count += more
            return {{"count": self.count}}
        def fail(self):
            print("what it said last", file=sys.stderr)
            raise ValueError("no")
        def end(self):
            raise SystemExit(3)

    worker.serve(lambda question: System(**question))
"""


def test_a_baseline_that_cannot_be_had_is_left_out_and_the_run_goes_on(tmp_path: Path) -> None:
    models = Models("tiny", "lively", *[tmp_path] * 6)
    python = tmp_path / "python"
    pythons = {"baselines": python, "openvino": python, "llama": BenchError("no compiler;\n  pip said so")}
    started = systems.Systems(models, pythons, tmp_path, tmp_path, tmp_path)
    left_out: dict[str, str] = {}
    told: list[str] = []
    with compare.leaving_out("llama_q8_0", left_out, told.append):
        started.start("llama_q8_0", 1)
    assert left_out == {"llama_q8_0": "no compiler; pip said so"}
    assert "llama_q8_0 is left out: no compiler" in told[0]
    with pytest.raises(BenchError, match="gone"), compare.leaving_out("ct2_int8", left_out, told.append):
        raise BenchError("gone")


def test_only_the_first_environment_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def make(folder: Path, name: str, log: Any) -> None:
        if name == failing:
            raise BenchError(f"no {name}")

    monkeypatch.setenv("NEURO_LATENT_CACHE", str(tmp_path))
    monkeypatch.setattr(environment, "_make", make)
    failing = "llama"
    found = environment.ready_all(None, lambda text: None)
    assert isinstance(found["openvino"], Path)
    assert str(found["llama"]) == "no llama"
    failing = "baselines"
    with pytest.raises(BenchError, match="no baselines"):
        environment.ready_all(None, lambda text: None)


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    script = tmp_path / "system.py"
    folder = str(Path(systems.worker.__file__).parent)
    script.write_text(textwrap.dedent(WORKER.format(folder=folder)), encoding="utf-8")
    return [sys.executable, str(script)]


def test_a_worker_answers_fails_and_goes_on(command: list[str]) -> None:
    with WorkerProcess("it", command, {"start": 3}) as worker:
        assert worker.versions == {"it": "1"}
        assert worker.ask("add", more=4) == {"count": 7}
        with pytest.raises(
            BenchError, match=r"it: fail failed: ValueError: no\n.*a library talks\n.*what it said last"
        ):
            worker.ask("fail")
        assert worker.ask("add", more=1) == {"count": 8}
    assert worker._process.poll() is not None


def test_a_worker_that_ends_is_an_error_and_not_a_hang(command: list[str]) -> None:
    with WorkerProcess("it", command, {"start": 3}) as worker, pytest.raises(BenchError, match="ended during 'end'"):
        worker.ask("end")
    with pytest.raises(BenchError, match="load failed"):
        WorkerProcess("it", command, {"begin": 3})


def test_pins_are_read() -> None:
    wanted = environment.pins(environment.requirements())
    assert wanted["ctranslate2"] == "4.8.5"
    assert wanted["optimum-onnx"] == "0.1.0"
    assert environment.pins("a==1 # why\n\n# b==2\nc>=3") == {"a": "1", "c": None}
    assert environment.pins(environment.requirements("llama"))["llama-cpp-python"] == "0.3.36"


def test_an_environment_that_is_not_as_pinned_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"--environment .*no working Python.*python -m venv"):
        environment.ready(tmp_path, lambda text: None)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    with pytest.raises(BenchError, match=r"optimum-onnx is missing, not 0\.1\.0"):
        environment.ready(tmp_path, lambda text: None)


def test_an_environment_that_pip_cannot_make_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEURO_LATENT_CACHE", str(tmp_path))
    told: list[str] = []
    real = environment._run

    def run(command: list[str], log: Any) -> None:
        if "pip" in command:
            real([sys.executable, "-c", "print('Collecting a'); print('ERROR: no index'); raise SystemExit(1)"], log)

    monkeypatch.setattr(environment, "_run", run)
    with pytest.raises(BenchError, match=r"ERROR: no index\n.*PIP_INDEX_URL.*--environment"):
        environment.ready(None, told.append)
    assert any("Collecting a" in line for line in told)
    assert str(tmp_path) in told[0]
