"""The model card as the hub reads it, and exports that are pushed to a hub on this machine."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fake_hub import serving
from huggingface_hub import ModelCard
from small_cases import SEARCH
from typer.testing import CliRunner

import se_nas
from se_nas.architecture import Architecture
from se_nas.cli import app
from se_nas.errors import ConfigError, SeNasError
from se_nas.exporting import export_model
from se_nas.exporting.hub import Repository
from se_nas.model import build_model
from se_nas.run import Data, Device, Manifest, Space, TrialRow

TOKEN = "hf_" + "s3cret" * 5
SIZE = (3, 32, 32)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = {**SEARCH, "objectives": "accuracy,params", "trials": 1, "final_seeds": 0}
    return se_nas.search(se_nas.SearchConfig(**config, runs=str(tmp_path_factory.mktemp("runs")), name="r"))


def command(run, out, repo, **environment):
    """se-nas export --push-to-hub, in a process that knows nothing of this machine's hub settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    home = str(out.parent)
    return subprocess.run(
        [sys.executable, "-m", "se_nas", "export", str(run.path), "--out", str(out), "--push-to-hub", repo],
        env={**kept, "HF_HOME": home, "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


LOAD = """
import sys
import torch, timm, se_nas
hub = timm.create_model("hf-hub:me/net", pretrained=True).eval()
local = se_nas.load_exported(sys.argv[1])
x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    print(bool(torch.equal(hub(x), local(x))), hub.num_classes)
"""


def test_what_is_pushed_is_what_timm_loads_from_the_hub(run, tmp_path):
    out = tmp_path / "net"
    with serving() as hub:
        done = command(run, out, "me/net", HF_TOKEN=TOKEN, HF_ENDPOINT=hub.url)
        assert done.returncode == 0, done.stderr
        assert f"pushed to {hub.url}/me/net" in done.stdout
        files = hub.repos["me/net"]
        assert files == {path.name: path.read_bytes() for path in out.iterdir()}
        assert files.keys() >= {"config.json", "model.safetensors", "README.md", "architecture.json"}
        assert set(hub.tokens) == {TOKEN}
        assert not any(TOKEN.encode() in content for content in files.values())
        assert 'timm.create_model("hf-hub:me/net", pretrained=True)' in (out / "README.md").read_text()
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache")}
        loaded = subprocess.run(
            [sys.executable, "-c", LOAD, str(out)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert loaded.stdout.split() == ["True", "10"], loaded.stderr
        # Another export goes to the same repository.
        again = command(run, tmp_path / "other", "me/net", HF_TOKEN=TOKEN, HF_ENDPOINT=hub.url)
        assert again.returncode == 0, again.stderr


def test_weights_go_by_git_lfs_where_the_hub_asks_for_it(run, tmp_path):
    out = tmp_path / "net"
    with serving() as hub:
        hub.lfs = (".safetensors",)
        # Without xet, which talks to storage of its own.
        done = command(run, out, "me/net", HF_TOKEN=TOKEN, HF_ENDPOINT=hub.url, HF_HUB_DISABLE_XET="1")
        assert done.returncode == 0, done.stderr
        assert hub.repos["me/net"] == {path.name: path.read_bytes() for path in out.iterdir()}
        weights = (out / "model.safetensors").read_bytes()
        assert hub.verified == [hashlib.sha256(weights).hexdigest()]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "error: push-to-hub needs a token with write access: set HF_TOKEN"),
        (
            {"HF_TOKEN": TOKEN, "HF_ENDPOINT": "http://127.0.0.1:9"},
            "error: me/net cannot be pushed to http://127.0.0.1:9: ",
        ),
    ],
    ids=["no token", "no answer"],
)
def test_without_token_or_network_there_is_one_sentence_and_no_folder(run, tmp_path, environment, said):
    done = command(run, tmp_path / "net", "me/net", **environment)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith(said), done.stderr
    assert TOKEN not in done.stderr
    assert not (tmp_path / "net").exists()


@pytest.mark.parametrize("name", ["me/a b", "a/b/c", "", "me/.."])
def test_a_name_that_the_hub_would_not_take_is_refused(name, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(ConfigError, match="give OWNER/NAME"):
        Repository(name)


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serving() as made:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", made.url)
        yield made


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_may_not_write_is_said_before_anything_is_written(run, hub, tmp_path, status):
    hub.refuse["/repos/create"] = status
    with pytest.raises(SeNasError, match=rf"the hub does not let this token write there \({status}\)\.$"):
        se_nas.export(run, out=tmp_path / "net", push_to_hub="me/net")
    assert not (tmp_path / "net").exists()


@pytest.mark.parametrize(
    ("status", "said"), [(403, "does not let this token write there"), (413, "HfHubHTTPError")]
)
def test_a_push_that_fails_says_where_the_export_is(run, hub, tmp_path, status, said):
    hub.refuse["/commit/"] = status
    with pytest.raises(SeNasError) as caught:
        se_nas.export(run, out=tmp_path / "net", push_to_hub="me/net")
    message = str(caught.value)
    assert said in message
    assert message.endswith(f"The export is in {tmp_path / 'net'}.")
    assert TOKEN not in message
    assert "\n" not in message
    assert (tmp_path / "net" / "config.json").is_file()


def test_help_names_the_option():
    assert "--push-to-hub" in CliRunner().invoke(app, ["export", "--help"], env={"COLUMNS": "120"}).stdout


def _card(tmp_path: Path, data: str, **results: float | None):
    architecture = Architecture.uniform("resnet10t", reduction=16)
    row = TrialRow(
        number=0, key=architecture.key, widths=architecture.widths, phase="final", state="complete", **results
    )
    manifest = Manifest(
        name="run",
        backbone="resnet10t",
        objectives=("accuracy", "params"),
        space=Space(name="per_block", size=16, fingerprint="f"),
        data=Data(
            name=data,
            fingerprint="d",
            num_classes=5,
            num_train=10,
            num_val=5,
            split_seed=0,
            mean=(0.1, 0.2, 0.3),
            std=(0.4, 0.5, 0.6),
        ),
        input_size=SIZE,
        sites={},
        device=Device(type="cpu"),
        recipe={},
    )
    torch.manual_seed(0)
    model = build_model(architecture, num_classes=5)
    facts = {"row": row, "manifest": manifest, "input_size": SIZE, "name": "a: net #1", "num_classes": 5}
    export_model(architecture, model, tmp_path / "net", metadata=facts)
    return ModelCard.load(tmp_path / "net" / "README.md")


def test_the_card_holds_results_that_the_hub_reads(tmp_path):
    card = _card(tmp_path, "hfds/cats", accuracy=91.25, test_accuracy=90.0)
    assert (card.data.pipeline_tag, card.data.library_name) == ("image-classification", "timm")
    assert card.data.model_name == "a: net #1"
    assert card.data.datasets == ["cats"]
    assert {"timm", "se-nas", "resnet10t"} <= set(card.data.tags)
    found = {
        one.dataset_split: (one.metric_type, one.metric_value, one.dataset_name)
        for one in card.data.eval_results
    }
    assert found == {"validation": ("accuracy", 0.9125, "hfds/cats"), "test": ("accuracy", 0.9, "hfds/cats")}


def test_a_card_without_results_has_none(tmp_path):
    card = _card(tmp_path, "photos: 'mine' [1]")
    assert card.data.eval_results is None
    assert card.data.datasets is None
    assert card.content.count("\n---\n") == 1
