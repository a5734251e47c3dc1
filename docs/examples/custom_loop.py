"""Your own training loop: search with --trainer custom_loop:train (with this folder on PYTHONPATH).

A trainer receives the model and a context with data, device, seed, epochs, recipe, checkpoint folder, `report`
and `should_stop`. It returns at least the validation accuracy in percent.
"""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, TensorDataset

from se_nas.training import Context, score


def train(model: torch.nn.Module, context: Context) -> dict[str, float]:
    data, device = context.data, context.device
    model.to(device)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (data.mean, data.std))

    def normalised(pixels: torch.Tensor) -> torch.Tensor:
        return ((pixels / 255 - mean) / std).to(device)

    # The generator depends only on the seed, so every candidate sees the images in the same order.
    order = torch.Generator().manual_seed(context.seed)
    batches = DataLoader(
        TensorDataset(data.train.pixels, data.train.labels), batch_size=32, shuffle=True, generator=order
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, nesterov=True)
    metrics: dict[str, float] = {"accuracy": 0.0}
    for epoch in range(1, context.epochs + 1):
        model.train()
        for pixels, labels in batches:
            if context.should_stop():
                return metrics
            loss = torch.nn.functional.cross_entropy(model(normalised(pixels)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            logits = torch.cat([model(normalised(part)).cpu() for part in data.val.pixels.split(256)])
        metrics = score(logits, data.val.labels, data.num_classes).to_dict()
        # Raises StopTraining if the search needs no more epochs; do not catch it.
        context.report(epoch, metrics["accuracy"], loss=metrics["loss"])
    return metrics
