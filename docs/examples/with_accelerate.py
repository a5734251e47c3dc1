"""Hugging Face Accelerate inside a search: --trainer with_accelerate:train (pip install accelerate).

Accelerate places model and optimiser, and handles mixed precision and accumulation. The batches are se-nas's, so
all candidates with the same seed see the same images and augmentation.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator

from se_nas.training import Context, evaluate
from se_nas.training.loop import make_batches
from se_nas.training.optim import make_loss, make_optimizer, make_scheduler


def train(model: torch.nn.Module, context: Context) -> dict[str, float]:
    accelerator = Accelerator(cpu=context.device == "cpu")
    batches = make_batches(context)
    optimizer = make_optimizer(model, context.recipe)
    schedule = make_scheduler(optimizer, context.recipe, batches.steps)
    loss_of = make_loss(context.recipe, batches.augment.mixes)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    metrics: dict[str, float] = {"accuracy": 0.0}
    for epoch in range(context.epochs):
        prepared.train()
        for step, (images, targets) in enumerate(batches.epoch(epoch)):
            if context.should_stop():
                return metrics
            with accelerator.accumulate(prepared):
                loss = loss_of(prepared(images.to(accelerator.device)), targets.to(accelerator.device))
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            schedule.step_update(epoch * batches.steps + step + 1)
        metrics = evaluate(accelerator.unwrap_model(prepared), context).to_dict()
        context.report(epoch + 1, metrics["accuracy"], loss=metrics["loss"])
    return metrics
