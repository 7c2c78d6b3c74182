"""Lightning's strategies wrap a model in the methods that we replace."""

import inspect

import lightning
import pytest
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy

OF = f"of Lightning {lightning.__version__} wraps a model elsewhere: see compat/strategy_hooks.py"


@pytest.mark.parametrize(
    ("strategy", "caller", "called"),
    [
        (FSDPStrategy, "setup", "_setup_model"),
        (DeepSpeedStrategy, "init_deepspeed", "_initialize_deepspeed_train"),
        (DeepSpeedStrategy, "init_deepspeed", "_initialize_deepspeed_inference"),
    ],
)
def test_the_method_is_called_where_the_model_is_wrapped(strategy: type, caller: str, called: str) -> None:
    assert called in vars(strategy), f"{strategy.__name__} {OF}"
    assert f"self.{called}(" in inspect.getsource(getattr(strategy, caller)), f"{strategy.__name__} {OF}"
