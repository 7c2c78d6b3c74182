"""What a 7B run leaves behind: a model as deep and wide as Llama-2 7B, but with narrow attention and FFN."""

from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from red_lightning.adapters import save_edits
from red_lightning.backbones.sharding import full_parameters
from red_lightning.callbacks import BestCheckpoint
from tests.backbones_zoo import VOCABULARY, build_tokenizer
from tests.conversations import Conversations, tuning
from tests.training import make_trainer


@pytest.fixture
def narrow(tmp_path: Path) -> Path:
    """A Llama of 32 layers and width 4096, with one attention head of width 2 and one FFN column: 1.6M weights."""
    shape = {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 1}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 2}
    config = LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=256, eos_token_id=0, **shape, **heads)
    LlamaForCausalLM(config).bfloat16().save_pretrained(tmp_path / "narrow")
    build_tokenizer().save_pretrained(tmp_path / "narrow")
    return tmp_path / "narrow"


def test_a_7b_checkpoint_has_at_most_4_mb_and_its_edits_1_1_mb(narrow: Path, tmp_path: Path) -> None:
    task = tuning(narrow)
    keeper = BestCheckpoint()
    trainer = make_trainer(tmp_path, keeper, max_steps=1)
    trainer.fit(task, datamodule=Conversations())
    assert task.trainable_counts() == {"trainable_parameters": 262_144}  # paper, Table 4: 0.26M
    assert 3 * 4 * 262_144 < keeper.last_path.stat().st_size <= 4_000_000  # vectors, and Adam's two moments
    save_edits(tmp_path / "edits", full_parameters(task), task.record())
    assert 4 * 262_144 < (tmp_path / "edits/edits.safetensors").stat().st_size <= 1_100_000
