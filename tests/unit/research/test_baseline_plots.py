"""Every comparison can be drawn."""

from pathlib import Path

from research.baselines import plots
from tests.pictures import HEAD, check, spread


def test_baselines(tmp_path: Path) -> None:
    scenario = {"per_token_ms": {name: spread(5.0) for name in ("ours", "ours_plain", "hf_eager", "ct2_int8")}}
    static = {"tokens_per_second": {"ours, through Triton": spread(900.0), "sorted, 8": spread(500.0)}}
    result = HEAD | {"scenarios": {"one_client": scenario, "copy_heavy": scenario}, "many_clients": static}
    check(plots.baselines(result, tmp_path))


def test_training(tmp_path: Path) -> None:
    speeds = {"adapter": spread(90.0), "PEFT prompt tuning, our batches": spread(40.0)}
    check(plots.training(HEAD | {"records_per_second": speeds}, tmp_path))
