"""The least that ``manifest.json`` holds, as JSON."""

from se_nas.run import SCHEMA, Manifest, RunFolder

FACTS = {
    "schema": SCHEMA,
    "name": "a-run",
    "backbone": "resnet18",
    "objectives": ["accuracy", "params"],
    "space": {"name": "per_block", "size": 16, "fingerprint": "f"},
    "data": {
        "name": "digits",
        "fingerprint": "d",
        "num_classes": 10,
        "num_train": 100,
        "num_val": 50,
        "split_seed": 0,
        "mean": [0.3, 0.3, 0.3],
        "std": [0.2, 0.2, 0.2],
    },
    "input_size": [3, 32, 32],
    "sites": {},
    "device": {"type": "cpu"},
    "recipe": {},
}


def empty_run(path):
    """A new run folder without trials."""
    return RunFolder.create(path, {}, Manifest.from_json(FACTS))
