"""A trainer without training: accuracy is a function of the network and the seed alone."""

import hashlib
import os
import time


def accuracy_of(key, seed, gates):
    """Percent, for a network of so many gates."""
    return round(60 + 4 * gates / 8 + 8 * _noise(key, seed), 2)


def train(model, context):
    gates = sum(name.endswith("fc1.weight") for name, _ in model.named_parameters())
    accuracy = accuracy_of(context.name, context.seed, gates)
    for epoch in range(1, context.epochs):
        context.report(epoch, accuracy - 10 / epoch)
    return {"accuracy": accuracy, "loss": round(2 - _noise(context.name, context.seed), 4)}


def train_slowly(model, context):
    """The same, in a second or what SECONDS says; stops when it is asked to, unless DEAF is set."""
    until = time.monotonic() + float(os.environ.get("SECONDS", "1"))
    while time.monotonic() < until and (os.environ.get("DEAF") or not context.should_stop()):
        time.sleep(0.01)
    return train(model, context)


def _noise(key, seed):
    return int.from_bytes(hashlib.sha256(f"{key}:{seed}".encode()).digest()[:4], "big") / 2**32
