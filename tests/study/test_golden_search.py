"""A whole search with one worker and params as cost, as version 0.1.0 made it before its modules were moved.

The trainer computes accuracy from the architecture and the seed, so the table does not depend on how a machine
rounds; it has no loss, which would be evidence about accuracy. A changed row is a decision: record anew only where
the change of the search is meant.
"""

import json
from pathlib import Path

from small_cases import table

import se_nas

GOLDEN = Path(__file__).with_name("golden_search.json")


def test_search_is_what_it_was(tmp_path):
    config = se_nas.SearchConfig(
        backbone="test_resnet",
        device="cpu",
        runs=str(tmp_path),
        objectives="accuracy,params",
        trials=24,
        final_seeds=2,
        epochs=1,
        trainer="golden_trainer:train_for_accuracy",
        keep="none",
    )
    run = se_nas.search(config)
    recorded = json.loads(GOLDEN.read_text())
    rows = [{name: row[name] for name in recorded[0]} for row in table(run.path)]
    assert rows == recorded
