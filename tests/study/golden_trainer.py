"""A trainer without training: accuracy is a function of the network and the seed alone."""

import hashlib


def train(model, context):
    digest = hashlib.sha256(f"{context.name}:{context.seed}".encode()).digest()
    noise = int.from_bytes(digest[:4], "big") / 2**32
    gates = sum(name.endswith("fc1.weight") for name, _ in model.named_parameters())
    return {"accuracy": round(60 + 4 * gates / 8 + 8 * noise, 2), "loss": round(2 - noise, 4)}
