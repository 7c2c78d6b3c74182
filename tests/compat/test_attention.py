"""The name of the attention implementation, however it was chosen."""

from types import SimpleNamespace

import pytest
import transformers

from red_lightning.compat.attention import attention_of
from tests.backbones_zoo import build


@pytest.mark.parametrize("name", ["sdpa", "eager"])
def test_it_is_the_one_that_was_set(name: str) -> None:
    model = build("gpt2")
    model.set_attn_implementation(name)
    assert attention_of(model) == name, (
        f"config._attn_implementation of transformers {transformers.__version__} is gone: see compat/attention.py"
    )


def test_without_the_name_nothing_is_said() -> None:
    assert attention_of(SimpleNamespace(config=object())) is None
