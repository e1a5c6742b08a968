"""RoBERTa-base and T5-small at their true size, random weights from their configs, with the real tokenizers.

The weights cannot be had here; shapes, tokenizers, export, Triton and client are the real ones.
"""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import RobertaConfig, RobertaModel, T5Config, T5ForConditionalGeneration

from neuro_latent_client import Client
from neuro_latent_export.repository import export_repository
from neuro_latent_serving.launch import FREE_PORTS, ServerConfig, TritonServer
from neuro_latent_trainer.model import PromptOptimizer
from tests import tiny
from tests.triton.wire import PLAIN

TOKENIZERS = Path(__file__).parents[2].parent / "shared" / "tokenizers"

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not TOKENIZERS.is_dir(), reason=f"the real tokenizers are not here ({TOKENIZERS})"),
]

PROMPTS = (
    "Create a function",
    "Explain how photosynthesis works to a 10 year old, in 3 steps.",
    "write a python script that reads `tasks.csv` and prints {total}\nthen sort it",
    "¿Cómo se dice “hello” en japonés? 😀",
)
TOKENS = 24


def write_reference_pair(folder: Path) -> tuple[Path, Path]:
    """The reference architectures in hub format."""
    encoder, generator = folder / "roberta-base", folder / "t5-small"
    for target in (encoder, generator):
        shutil.copytree(TOKENIZERS / target.name, target)
        target.chmod(0o755)
    torch.manual_seed(0)
    RobertaModel(
        RobertaConfig(
            vocab_size=50265,
            max_position_embeddings=514,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=2,
        ),
        add_pooling_layer=False,
    ).save_pretrained(encoder)
    t5 = T5ForConditionalGeneration(
        T5Config(
            vocab_size=32128,
            d_model=512,
            d_kv=64,
            d_ff=2048,
            num_layers=6,
            num_decoder_layers=6,
            num_heads=8,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
        )
    )
    tiny.enliven(t5, strength=1.5)
    t5.save_pretrained(generator)
    return encoder, generator


def test_the_reference_sizes_give_the_same_text_as_hugging_face_through_triton(tmp_path: Path) -> None:
    encoder, generator = write_reference_pair(tmp_path)
    adapter = tiny.write_adapter(
        tmp_path / "adapter", encoder, generator, black_box_width=1024, soft_prompt_tokens=20, bottleneck_width=128
    )
    manifest = export_repository(adapter, tmp_path / "repository")
    assert manifest["sizes"]["encoder_width"] == 768
    assert manifest["sizes"]["generator_width"] == 512
    assert manifest["parity"]["generation"]["identical"] >= 50

    model = PromptOptimizer.from_pretrained(adapter)
    expected = [model.generate([prompt], TOKENS)[0] for prompt in PROMPTS]
    assert len(set(expected)) >= 3, "the random model must write different texts for different prompts"
    assert all(text.strip() for text in expected)
    with TritonServer(tmp_path / "repository", ServerConfig(ports=FREE_PORTS, environment=PLAIN)) as server:
        for url in (server.grpc_url, server.http_url):
            with Client(url, timeout=60) as client:
                assert [client.optimize(prompt, max_length=TOKENS).text for prompt in PROMPTS] == expected
