"""A user's trainer that is stopped before its first epoch has ended is unfinished, not failed."""

from types import SimpleNamespace

import pytest

from se_nas.errors import ConfigError
from se_nas.training import adapt


def context(stopped):
    return SimpleNamespace(
        should_stop=lambda: stopped,
        curve=[],
        epochs=2,
        seconds=1.0,
        recipe=SimpleNamespace(batch_size=8),
        data=SimpleNamespace(val=range(3)),
    )


def test_a_trainer_that_is_stopped_needs_no_accuracy():
    trained = adapt(lambda model, context: {"accuracy": None})
    result = trained(None, context(stopped=True))
    assert (result.state, result.accuracy) == ("unfinished", None)
    with pytest.raises(ConfigError, match="accuracy None"):
        trained(None, context(stopped=False))
