"""The loop: what it learns, that it is paired and deterministic, and how it goes on after an interruption."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from se_nas.errors import DataError
from se_nas.training import context as context_module
from se_nas.training import evaluate, initial_weights, train
from se_nas.training.checkpoint import checkpoint_path, load_state
from se_nas.training.loop import make_batches
from se_nas.training.randomness import seeded


def weights_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(left, right):
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


def test_learns_and_reports_every_epoch(small_net, make_context):
    context = make_context(epochs=6, lr=1e-2)
    result = train(small_net(), context)
    assert result.state == "complete"
    assert result.accuracy == 100.0
    assert result.top5 == 100.0
    assert [row["epoch"] for row in result.curve] == [1, 2, 3, 4, 5, 6]
    assert result.curve[-1]["accuracy"] == result.accuracy
    assert result.curve[-1]["loss"] == pytest.approx(result.loss)
    assert result.loss < result.curve[0]["loss"]
    assert len(result.per_class) == 3
    assert (result.epochs, result.epochs_planned) == (6, 6)
    assert result.to_dict()["weights"] is None


def test_model_ends_with_the_weights_that_were_evaluated(small_net, make_context):
    context = make_context()
    model = small_net()
    result = train(model, context)
    again = evaluate(model, context)
    assert (again.accuracy, again.loss) == (result.accuracy, result.loss)


def test_says_of_each_validation_image_whether_it_was_right(small_net, make_context):
    context, model = make_context(epochs=1), small_net()
    result = train(model, context)
    assert 0 < result.accuracy < 100
    with torch.no_grad():
        pixels = context.data.val.pixels.float() / 255
        mean, std = (torch.tensor(own).view(3, 1, 1) for own in (context.data.mean, context.data.std))
        expected = model.eval()((pixels - mean) / std).argmax(1) == context.data.val.labels
    assert result.correct.tolist() == expected.tolist()
    assert 100 * result.correct.mean() == pytest.approx(result.accuracy)
    assert "correct" not in result.to_dict()


@pytest.mark.parametrize("ema", [None, 0.9])
def test_is_deterministic_and_leaves_the_callers_generators_alone(small_net, make_context, ema):
    first, second = small_net(), small_net()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(first, make_context(ema_decay=ema))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    train(second, make_context(ema_decay=ema))
    assert_same(weights_of(first), weights_of(second))


def test_seed_changes_the_outcome(small_net, make_context):
    first, second = small_net(), small_net()
    train(first, make_context(seed=0))
    train(second, make_context(seed=1))
    assert not torch.equal(first.fc.weight, second.fc.weight)


FULL = {
    "mixup": 0.2,
    "cutmix": 1.0,
    "auto_augment": "rand-m6-mstd0.5-inc1",
    "random_erasing": 0.5,
    "crop": "random_resized",
    "hflip": 0.5,
}


@pytest.mark.parametrize("settings", [{}, FULL, {"crop": "none"}], ids=["plain", "full", "none"])
def test_candidates_of_a_seed_see_the_same_images_in_the_same_order(small_net, make_context, settings):
    """What two different networks are given, batch by batch, while they really train."""
    seen = []
    for se in (True, False):
        model = small_net(se=se, dropout=0.4 if se else 0.1)
        batches = []
        handle = model.register_forward_pre_hook(
            lambda module, inputs, to=batches: to.append(inputs[0].clone()) if module.training else None
        )
        train(model, make_context(seed=3, epochs=2, **settings))
        handle.remove()
        seen.append(batches)
    assert len(seen[0]) == len(seen[1]) == 2 * 6
    assert all(torch.equal(left, right) for left, right in zip(*seen, strict=True))
    # Epochs differ, or the test would hold for a loader that never shuffles.
    assert not torch.equal(seen[0][0], seen[0][6])


def test_draws_do_not_depend_on_global_generators(make_context):
    context = make_context(seed=1, **FULL)
    with seeded(9, 1):
        first = [images.clone() for images, _ in make_batches(context).epoch(0)]
    with seeded(9, 2):
        second = [images.clone() for images, _ in make_batches(context).epoch(0)]
    assert all(torch.equal(left, right) for left, right in zip(first, second, strict=True))


def test_first_weights_are_shared(small_net):
    import timm

    with initial_weights(4):
        first = timm.create_model("resnet10t", num_classes=3)
    torch.manual_seed(77)
    with initial_weights(4):
        second = timm.create_model("resnet10t", num_classes=3)
    assert_same(weights_of(first), weights_of(second))


def test_model_with_too_few_outputs(small_net, make_context):
    with pytest.raises(DataError, match=r"2 outputs.*'stripes' go up to 2.*num_classes=3"):
        train(small_net(num_classes=2), make_context())


def test_study_can_stop_it_early(small_net, make_context, tmp_path):
    seen = []

    def on_epoch(epoch, metrics):
        seen.append((epoch, metrics["accuracy"], metrics["loss"]))
        return epoch < 2

    result = train(small_net(), make_context(epochs=5, on_epoch=on_epoch, checkpoint_dir=tmp_path))
    assert result.state == "stopped"
    assert [epoch for epoch, *_ in seen] == [1, 2]
    assert result.epochs == 2
    assert (result.accuracy, result.loss) == seen[-1][1:]
    assert result.weights is not None
    assert result.weights.exists()


@pytest.mark.parametrize("batches_before", [3, 6, 8, 13])
@pytest.mark.parametrize(
    "settings",
    [{}, {"ema_decay": 0.9, "mixup": 0.3, "clip_grad": 1.0, "optimizer": "sgd"}, {"optimizer": "lamb"}],
    ids=["adamw", "ema-mixup-clip-sgd", "lamb"],
)
def test_resume_is_bit_identical(small_net, make_context, tmp_path, batches_before, settings):
    """Stopped inside of an epoch or at its end, and gone on with by a new model and context."""
    straight = small_net()
    expected = train(straight, make_context(**settings))

    polls = iter(range(10**6))
    context = make_context(checkpoint_dir=tmp_path, stop=lambda: next(polls) >= batches_before, **settings)
    cut = train(small_net(), context)
    assert cut.state == "unfinished"
    assert cut.weights is None
    state = load_state(checkpoint_path(tmp_path, "candidate", 0, ".state"))
    assert (state["epoch"], state["step"]) == divmod(batches_before, 6)

    resumed = small_net(seed=8)
    result = train(resumed, make_context(checkpoint_dir=tmp_path, **settings))
    assert result.state == "complete"
    assert_same(weights_of(straight), weights_of(resumed))
    assert (result.accuracy, result.loss, result.ece) == (expected.accuracy, expected.loss, expected.ece)
    assert result.correct.tolist() == expected.correct.tolist()
    drop = {"seconds"}
    strip = lambda curve: [{k: v for k, v in row.items() if k not in drop} for row in curve]  # noqa: E731
    assert strip(result.curve) == strip(expected.curve)
    assert not checkpoint_path(tmp_path, "candidate", 0, ".state").exists()


def test_seconds_are_the_trainings_own_before_an_interruption_too(
    small_net, make_context, tmp_path, monkeypatch
):
    now = 1000.0

    def spend(seconds, answer):
        nonlocal now
        now += seconds
        return answer

    class Working:
        def on_epoch(self, name, epoch, metrics):
            spend(1.0, None)

        def on_end(self, name, result):
            pass

    monkeypatch.setattr(context_module, "time", SimpleNamespace(monotonic=lambda: now))
    polls = iter(range(100))

    def context(most):
        made = make_context(
            checkpoint_dir=tmp_path,
            loggers=(Working(),),
            stop=lambda: spend(10.0, next(polls) == most),
            on_epoch=lambda epoch, metrics: spend(100.0, True),
        )
        return replace(made, _started=now)

    cut = train(small_net(), context(8))
    assert (cut.state, cut.epochs, cut.seconds) == ("unfinished", 1, 1.0)
    now += 10_000
    result = train(small_net(), context(None))
    assert (result.state, result.seconds) == ("complete", 3.0)
    assert [row["seconds"] for row in result.curve] == [0.0, 1.0, 2.0]


def test_state_of_another_recipe_is_not_taken(small_net, make_context, tmp_path):
    polls = iter(range(100))
    train(small_net(), make_context(checkpoint_dir=tmp_path, stop=lambda: next(polls) >= 8))
    straight, other = small_net(), small_net()
    train(straight, make_context(lr=1e-3))
    train(other, make_context(lr=1e-3, checkpoint_dir=tmp_path))
    assert_same(weights_of(straight), weights_of(other))


def test_frozen_warm_up_trains_se_and_head_alone(small_net, make_context):
    model = small_net()
    before = weights_of(model)
    context = make_context(epochs=2, freeze_epochs=1, on_epoch=lambda epoch, metrics: False)
    train(model, context)
    after = weights_of(model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"fc.weight", "fc.bias", "se.fc2.weight", "se.fc2.bias", "se.fc1.weight", "se.fc1.bias"}


@pytest.mark.parametrize("freeze_epochs", [0, 1])
def test_norms_in_evaluation_mode_keep_their_statistics_and_train_the_rest(
    small_net, make_context, freeze_epochs
):
    model = small_net()
    before, parameters = weights_of(model), {name for name, _ in model.named_parameters()}
    train(model, make_context(epochs=2, norm_eval=True, freeze_epochs=freeze_epochs))
    moved = {name for name, value in weights_of(model).items() if not torch.equal(before[name], value)}
    assert moved == parameters


@pytest.mark.parametrize("parts", [[6], [2, 4], [5, 1]], ids=str)
def test_a_frozen_start_may_end_within_an_epoch(small_net, make_context, tmp_path, parts):
    """Of six steps the first three leave the backbone's weights and statistics alone, also across an interruption."""
    seen = []
    for steps in parts:
        model, polls = small_net(), iter(range(steps + 1))

        def stop(model=model, polls=polls, steps=steps):
            if next(polls) == steps:
                return True
            seen.append((model.stem[0].weight.detach().clone(), int(model.stem[1].num_batches_tracked)))
            return False

        train(model, make_context(epochs=1, freeze_epochs=0.5, checkpoint_dir=tmp_path, stop=stop))
    moved = [not torch.equal(weights, small_net().stem[0].weight) for weights, _ in seen]
    assert moved == [False, False, False, False, True, True]
    assert [batches for _, batches in seen] == [0, 0, 0, 0, 1, 2]


def test_learning_rate_factors_by_part(small_net, make_context):
    from se_nas.training.optim import make_optimizer, make_scheduler

    context = make_context(
        lr=1e-2,
        se_lr_factor=2.0,
        head_lr_factor=3.0,
        backbone_lr_factor=0.1,
        warmup_epochs=0,
        weight_decay=0.3,
    )
    model = small_net()
    optimizer = make_optimizer(model, context.recipe)
    make_scheduler(optimizer, context.recipe, steps=6)
    rates = {}
    for group in optimizer.param_groups:
        rates[group["part"], group["weight_decay"]] = (group["lr"], sum(p.numel() for p in group["params"]))
    se_weights, se_biases = 16 * 4 + 4 * 16, 4 + 16
    assert rates == {
        ("se", 0.3): (pytest.approx(2e-2), se_weights),
        ("se", 0.0): (pytest.approx(2e-2), se_biases),
        ("head", 0.3): (pytest.approx(3e-2), 48),
        ("head", 0.0): (pytest.approx(3e-2), 3),
        ("backbone", 0.3): (pytest.approx(1e-3), 3 * 8 * 9 + 8 * 16 * 9),
        ("backbone", 0.0): (pytest.approx(1e-3), 2 * 8 + 2 * 16),
    }


def test_schedule_warms_up_and_falls_to_its_end(small_net, make_context):
    from se_nas.training.optim import make_optimizer, make_scheduler

    context = make_context(epochs=4, lr=1.0, warmup_epochs=1, warmup_lr=0.1, min_lr=0.0)
    optimizer = make_optimizer(small_net(), context.recipe)
    scheduler = make_scheduler(optimizer, context.recipe, steps=5)
    rates = [optimizer.param_groups[0]["lr"]]
    for update in range(1, 21):
        scheduler.step_update(update)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(0.1)
    assert rates[3] == pytest.approx(0.1 + 3 * 0.9 / 5)
    # Cosine over all 20 updates, as timm's schedulers do it without warmup_prefix.
    assert rates[10] == pytest.approx(0.5 * (1 + math.cos(math.pi * 10 / 20)))
    assert rates[20] == pytest.approx(0.0, abs=1e-9)
