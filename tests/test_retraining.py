import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from small_cases import SEARCH

import se_nas
from se_nas.errors import ConfigError, DataError, RunError, SeNasError
from se_nas.study.progress import Progress
from se_nas.training import Recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return se_nas.search(
        se_nas.SearchConfig(**SEARCH, trials=3, final_seeds=0, runs=str(tmp_path_factory.mktemp("runs")))
    )


class Told(Progress):
    """Keeps the messages; presses Ctrl-C after an epoch."""

    def __init__(self, stop_at=None):
        self.messages, self.stop_at = [], stop_at

    def message(self, text):
        self.messages.append(text)
        if self.stop_at is not None and text.startswith(f"epoch {self.stop_at} of"):
            os.kill(os.getpid(), signal.SIGINT)


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def assert_same(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def retrained(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "best"
    told = Told()
    return se_nas.retrain(run, out=out, epochs=3, seed=4, device="cpu", progress=told), told


def test_exports_a_network_with_its_accuracy_and_recipe(run, retrained):
    exported, told = retrained
    assert sorted(path.name for path in exported.path.parent.iterdir()) == ["best"]
    network = se_nas.load_exported(exported.path)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    epochs = [text for text in told.messages if text.startswith("epoch")]
    assert [text.split(":")[0] for text in epochs] == ["epoch 1 of 3", "epoch 2 of 3", "epoch 3 of 3"]
    assert epochs[-1].endswith("about 0.0 min left")
    card = (exported.path / "README.md").read_text()
    accuracy = epochs[-1].split(": ")[1].split(" %")[0]
    assert f"| top-1 on validation data | {accuracy} % |" in card
    assert "| epochs | 3 |" in card
    assert "epochs=3" in card
    assert "Retrained from scratch, one seed (4)." in card
    best = run.front[-1]
    assert f"In the run that found it, {best.accuracy:.2f} % after 1 epoch" in card


def test_accuracy_is_that_of_the_exported_network(run, retrained):
    exported, told = retrained
    from se_nas.data import load_data

    data = load_data("digits", test_fraction=0.1)
    network = se_nas.load_exported(exported.path)
    mean, std = (torch.tensor(own).view(3, 1, 1) for own in (data.mean, data.std))
    with torch.no_grad():
        hits = network((data.val.pixels.float() / 255 - mean) / std).argmax(1) == data.val.labels
    last = next(text for text in told.messages if text.startswith("epoch 3"))
    assert f"{100 * hits.double().mean().item():.2f} %" in last


def test_ctrl_c_stops_cleanly_and_the_same_call_goes_on(run, retrained, tmp_path):
    told, again = Told(stop_at=1), Told()
    with pytest.raises(KeyboardInterrupt):
        se_nas.retrain(run, out=tmp_path / "net", epochs=3, seed=4, device="cpu", progress=told)
    assert "the same command continues" in told.messages[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["net.partial"]
    exported = se_nas.retrain(run, out=tmp_path / "net", epochs=3, seed=4, device="cpu", progress=again)
    assert not any(text.startswith("epoch 1 ") for text in again.messages)
    assert_same(weights_of(exported.path), weights_of(retrained[0].path))
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_kill_in_mid_training_and_go_on(run, retrained, tmp_path):
    script = textwrap.dedent(
        f"""
        import torch
        torch.set_num_threads(1)
        import se_nas
        from se_nas.study.progress import Progress

        class Tell(Progress):
            def message(self, text):
                print(text, flush=True)

        out = {str(tmp_path / "net")!r}
        se_nas.retrain({str(run.path)!r}, out=out, epochs=3, seed=4, device="cpu", progress=Tell())
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("epoch 2"):
                break
        time.sleep(0.1)
        process.kill()
    told = Told()
    exported = se_nas.retrain(run, out=tmp_path / "net", epochs=3, seed=4, device="cpu", progress=told)
    assert not any(text.startswith("epoch 1 ") for text in told.messages)
    assert_same(weights_of(exported.path), weights_of(retrained[0].path))


def test_killed_before_the_export_trains_nothing_again(run, retrained, tmp_path, monkeypatch):
    from se_nas.retraining import session

    def full_disk(*arguments, **keywords):
        raise RunError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(session, "export_model", full_disk)
        with pytest.raises(RunError, match="no space left"):
            se_nas.retrain(run, out=tmp_path / "net", epochs=3, seed=4, device="cpu")
    told = Told()
    exported = se_nas.retrain(run, out=tmp_path / "net", epochs=3, seed=4, device="cpu", progress=told)
    assert not any(text.startswith("epoch") for text in told.messages)
    assert_same(weights_of(exported.path), weights_of(retrained[0].path))
    cards = [(path / "README.md").read_text() for path in (exported.path, retrained[0].path)]
    assert cards[0] == cards[1]


def test_another_retraining_is_not_gone_on_with(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        se_nas.retrain(run, out=tmp_path / "net", epochs=3, device="cpu", progress=Told(stop_at=1))
    with pytest.raises(ConfigError, match=r"net.partial holds an unfinished .* differs in: recipe, seed"):
        se_nas.retrain(run, out=tmp_path / "net", epochs=4, seed=1, device="cpu")


def image_folder(path, classes=2, images=12):
    rng = np.random.default_rng(0)
    for label in range(classes):
        folder = path / f"class{label}"
        folder.mkdir(parents=True)
        for index in range(images):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    return path


STILL = {
    "preset": "tiny",
    "lr": 1e-12,
    "batch_size": 128,
    "precision": "fp32",
    "epochs": 1,
    "warmup_epochs": 0,
}


def test_from_its_weights(run, tmp_path):
    best = run.front[-1]
    kept = load_file(run.path / "checkpoints" / f"{best.key}-s0.safetensors")
    still = se_nas.retrain(run, out=tmp_path / "a", recipe=STILL, from_weights=True, device="cpu")
    assert torch.allclose(weights_of(still.path)["fc.weight"], kept["fc.weight"], atol=1e-6)
    anew = se_nas.retrain(run, out=tmp_path / "b", recipe=STILL, device="cpu")
    assert not torch.allclose(weights_of(anew.path)["fc.weight"], kept["fc.weight"], atol=1e-4)
    card = (still.path / "README.md").read_text()
    assert f"Retrained from the weights of trial {best.counted[0].number}, one seed (0)." in card


def begun(run, tmp_path, **given):
    """What a retraining says that it begins, stopped after its first epoch."""
    told = Told(stop_at=1)
    with pytest.raises(KeyboardInterrupt):
        se_nas.retrain(run, out=tmp_path / "net", device="cpu", progress=told, **given)
    settings = json.loads((tmp_path / "net.partial" / "retrain.json").read_text())
    shutil.rmtree(tmp_path / "net.partial")
    return told.messages[1], Recipe.from_dict(settings["recipe"])


def test_the_full_recipe_is_the_one_for_the_start(tmp_path):
    weights = tmp_path / "plain.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), weights)
    given = {**SEARCH, "trials": 1, "final_seeds": 0, "recipe": None, "batch_size": 256, "epochs": 1}
    scratch, tuned = (
        se_nas.search(se_nas.SearchConfig(**given, **changes, runs=str(tmp_path / "runs")))
        for changes in ({}, {"checkpoint": str(weights)})
    )
    tiny, finetune = (Recipe.preset(name, batch_size=256) for name in ("tiny", "finetune"))
    said, recipe = begun(tuned, tmp_path)
    assert f"from {weights} on digits" in said
    assert recipe == finetune
    assert begun(scratch, tmp_path)[1] == tiny
    assert begun(scratch, tmp_path, from_weights=True)[1] == tiny
    assert begun(tuned, tmp_path, from_weights=True)[1] == finetune
    assert begun(scratch, tmp_path, from_weights=True, recipe="tiny", epochs=7)[1] == Recipe.preset(
        "tiny", epochs=7
    )


def test_from_its_weights_on_other_classes(run, tmp_path):
    data = image_folder(tmp_path / "data")
    exported = se_nas.retrain(
        run, out=tmp_path / "net", data=str(data), recipe=STILL, from_weights=True, device="cpu"
    )
    key = run.front[-1].key
    kept, now = load_file(run.path / "checkpoints" / f"{key}-s0.safetensors"), weights_of(exported.path)
    assert now["fc.weight"].shape == (2, kept["fc.weight"].shape[1])
    assert torch.allclose(now["conv1.0.weight"], kept["conv1.0.weight"], atol=1e-6)
    config = json.loads((exported.path / "config.json").read_text())
    assert config["num_classes"] == 2
    assert config["label_names"] == ["class0", "class1"]


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"pick": "bset"}, RunError, "no pick 'bset'.*Did you mean 'best'"),
        ({"epochs": 0}, ConfigError, "epochs is 0"),
        ({"recipe": "tinny"}, ConfigError, "recipe is 'tinny'.*tiny"),
        ({"recipe": {"lrr": 1}}, ConfigError, "unknown key 'lrr'"),
        ({"batch_size": 0}, ConfigError, "batch_size is 0"),
        ({"data": "/nowhere"}, SeNasError, "'/nowhere' is neither"),
        ({"format": "onx"}, ConfigError, "format is 'onx'.*onnx"),
        ({"device": "gpu"}, SeNasError, "'gpu'"),
        ({"seed": -1}, ConfigError, "seed is -1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_mistakes_are_explained_and_nothing_is_written(run, tmp_path, keywords, error, message):
    with pytest.raises(error, match=message):
        se_nas.retrain(run, out=tmp_path / "net", **{"device": "cpu", **keywords})
    assert list(tmp_path.iterdir()) == []


def test_strict_stops_at_an_unreadable_image(run, tmp_path):
    data = image_folder(tmp_path / "data")
    (data / "class0" / "0.png").write_bytes(b"none")
    given = {"data": str(data), "recipe": STILL, "device": "cpu", "input_size": 32}
    with pytest.raises(DataError, match=r"image 'class0/0.png' cannot be decoded"):
        se_nas.retrain(run, out=tmp_path / "net", strict=True, **given)
    assert not (tmp_path / "net").exists()
    told = Told()
    se_nas.retrain(run, out=tmp_path / "net", progress=told, **given)
    assert any("class0/0.png" in text for text in told.messages)


def test_a_folder_that_is_taken_is_refused_at_once(run, retrained, tmp_path):
    with pytest.raises(ConfigError, match="already holds an exported network"):
        se_nas.retrain(run, out=retrained[0].path, device="cpu")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty and does not hold an exported network"):
        se_nas.retrain(run, out=tmp_path, device="cpu", force=True)


def test_weights_that_were_not_kept(run, tmp_path):
    folder = shutil.copytree(run.path, tmp_path / "run")
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(RunError, match=r"no weights of .* were kept"):
        se_nas.retrain(folder, out=tmp_path / "net", from_weights=True, device="cpu")
    assert not (tmp_path / "net.partial").exists()


def test_a_training_that_diverges_leaves_nothing(run, tmp_path):
    recipe = {"preset": "tiny", "batch_size": 128, "precision": "fp32", "optimizer": "sgd", "lr": 1000.0}
    with pytest.raises(ConfigError, match="diverged with lr 1000, and again with a tenth of it"):
        se_nas.retrain(run, out=tmp_path / "net", recipe=recipe, epochs=2, device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_two_processes_cannot_work_on_one_folder(run, tmp_path):
    from filelock import FileLock

    (tmp_path / "net.partial").mkdir()
    with (
        FileLock(tmp_path / "net.partial" / "retrain.lock"),
        pytest.raises(RunError, match="another se-nas process is working on"),
    ):
        se_nas.retrain(run, out=tmp_path / "net", device="cpu")
