"""Trainers whose results are known: without training, as a function of network and seed; and one that takes time."""

import contextlib
import dataclasses
import hashlib
import math
import os
import time
from pathlib import Path

import se_nas.training


def accuracy_of(key, seed, gates):
    """Percent, for a network of so many gates."""
    return round(60 + 4 * gates / 8 + 8 * _noise(key, seed), 2)


def train(model, context):
    gates = sum(name.endswith("fc1.weight") for name, _ in model.named_parameters())
    accuracy = accuracy_of(context.name, context.seed, gates)
    for epoch in range(1, context.epochs):
        context.report(epoch, accuracy - 10 / epoch)
    return {"accuracy": accuracy, "loss": round(2 - _noise(context.name, context.seed), 4)}


def train_for_accuracy(model, context):
    """The same without a loss, so that the sampler has no evidence beside the accuracy."""
    return {"accuracy": train(model, context)["accuracy"]}


def train_slowly(model, context):
    """The same, in a second or what SECONDS says, and not before the file GATE is there, if that is named.

    It stops when it is asked to, unless DEAF is set.
    """
    until, gate = time.monotonic() + float(os.environ.get("SECONDS", "1")), os.environ.get("GATE")
    with _announced(f"{context.name}-s{context.seed}"):
        while time.monotonic() < until or (gate and not os.path.exists(gate)):
            if not os.environ.get("DEAF") and context.should_stop():
                break
            time.sleep(0.01)
    return train(model, context)


def train_with_rests(model, context):
    """se-nas' own training, stretched to SECONDS by rests."""
    batches = math.ceil(len(context.data.train) / context.recipe.batch_size) * context.epochs
    rest = float(os.environ.get("SECONDS", "1")) / batches

    def stop():
        time.sleep(rest)
        return context.should_stop()

    with _announced(f"{context.name}-s{context.seed}"):
        return se_nas.training.train(model, dataclasses.replace(context, stop=stop))


@contextlib.contextmanager
def _announced(name):
    """Meanwhile a file of the process's number in TRAINED_BY says what it trains."""
    if "TRAINED_BY" not in os.environ:
        yield
        return
    file = Path(os.environ["TRAINED_BY"], str(os.getpid()))
    file.write_text(name)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _noise(key, seed):
    return int.from_bytes(hashlib.sha256(f"{key}:{seed}".encode()).digest()[:4], "big") / 2**32
