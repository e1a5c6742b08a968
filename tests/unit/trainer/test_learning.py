"""Training makes the frozen T5 write what it should, because of the soft prompts: on the embedded pair."""

from pathlib import Path

import pytest
import torch

from neuro_latent_trainer.evaluation.evaluate import ADAPTER, EvaluationConfig, score
from neuro_latent_trainer.settings import TrainConfig
from neuro_latent_trainer.training import Observer, Run
from tests.unit.trainer.conftest import sample_records

pytestmark = pytest.mark.slow

BATCH, BATCHES_AN_EPOCH, EPOCHS = 8, 5, 40
CROSS_ENTROPY_FALLS = 0.7
USAGE_GAP_REACHES = 0.3


def test_200_steps_on_a_small_set_lower_the_loss_and_raise_the_usage_gap(tmp_path: Path) -> None:
    records = sample_records(0, BATCH * BATCHES_AN_EPOCH)
    settings = TrainConfig(
        form="complement",
        batch_size=BATCH,
        phase1_epochs=EPOCHS // 2,
        phase2_epochs=EPOCHS // 2,
        sample_every=0,
        max_target_tokens=32,
    )
    run = Run(settings, records, records[:2], tmp_path, Observer(), torch.device("cpu"))
    config = EvaluationConfig(max_target_tokens=32)

    def figures() -> tuple[float, float]:
        found = score(run.model.eval(), records, config=config)
        return found["ce"][ADAPTER]["value"], found["usage_gap"][ADAPTER]["value"]

    before = figures()
    assert run.execute().steps == 200
    after = figures()
    assert before[0] - after[0] > CROSS_ENTROPY_FALLS
    assert after[1] > USAGE_GAP_REACHES > before[1]
