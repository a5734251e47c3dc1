"""Who may take part in a shared study, and what an address may be. What needs a server is in test_shared_trials."""

import json
from dataclasses import replace

import pytest
from least_manifest import empty_run
from typer.testing import CliRunner

import se_nas
from se_nas.cli import app
from se_nas.errors import ConfigError, RunError
from se_nas.run import CONFIG, MANIFEST
from se_nas.study import peers
from se_nas.study.address import check_address, check_study
from se_nas.study.provenance import versions

URL = "postgresql+psycopg://me@db.example:5433/nas?sslmode=require"


@pytest.fixture
def manifest(tmp_path):
    found = empty_run(tmp_path / "theirs").manifest
    return replace(
        found, se_nas_version=se_nas.__version__, versions=versions(), created="2026-01-01T00:00:00+00:00"
    )


@pytest.fixture
def config():
    return se_nas.SearchConfig(backbone="resnet18", storage=URL, study="one")


def test_an_address_is_that_of_a_postgresql_database():
    assert check_address(URL) == URL
    for url, reason in (
        ("sqlite:////shared/study.db", "is a file, which several machines cannot write safely"),
        ("runs/a/study.db", "is a file"),
        ("runs/a/study.journal", "is a file"),
        ("mysql+pymysql://me@db/nas", "is not the address of a PostgreSQL database"),
        ("postgresql://me@db/nas", "is not the address of a PostgreSQL database"),
        ("postgresql+psycopg://me@db", "is not the address of a PostgreSQL database"),
        ("postgresql+psycopg:///nas", "is not the address of a PostgreSQL database"),
        ("postgresql+psycopg://me@db:port/nas", "is not an address"),
        ("postgresql+psycopg://[me@db/nas", "is not an address"),
        ("postgresql+psycopg://me@db/nas\n", "is not an address"),
        ("postgresql+psycopg://me@db/\udcff", "is not an address"),
    ):
        with pytest.raises(ConfigError, match=reason) as caught:
            check_address(url)
        assert "postgresql+psycopg://USER@HOST/DATABASE" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:pass-word@db/nas",
        "postgresql+psycopg://me:12/pass-word@db/nas",
        "postgresql+psycopg://me@db/nas?password=pass-word",
        "postgresql+psycopg://me@db/nas?sslmode=require&sslPassword=pass-word",
        "postgresql+psycopg://me@db/nas?oauth_client_secret=pass-word",
    ],
)
@pytest.mark.parametrize(
    "command", ["search --backbone resnet18", "worker --study one", "show --study one", "report --study one"]
)
def test_a_password_in_an_address_is_refused_and_never_repeated(url, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    more = ["--out", "page.html"] if command.startswith("report") else []
    result = CliRunner().invoke(app, [*command.split(), "--storage", url, *more])
    assert isinstance(result.exception, ConfigError)
    assert "contains a password" in str(result.exception)
    assert "PGPASSWORD" in str(result.exception)
    assert "pass-word" not in str(result.exception) + result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("study", ["a\x1b[31mb", "two\nlines", "\udcff", "x" * 513])
def test_the_name_of_a_study_fits_a_terminal_and_the_database(study):
    assert check_study("näme of 512 / " + "x" * 498).startswith("näme")
    own = ["--storage", URL, "--study", study]
    for words in (["search", "--backbone", "resnet18"], ["worker"], ["worker", "--latency-only"], ["show"]):
        result = CliRunner().invoke(app, [*words, *own])
        assert isinstance(result.exception, ConfigError)
        assert str(result.exception) == (
            f"study is {study[:512]!r}: its name is up to 512 printable characters."
        )


def test_a_driver_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("se_nas.study.address.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'se-nas\[postgresql\]'"):
        check_address(URL)


def test_a_study_without_a_database_is_refused():
    with pytest.raises(ConfigError, match="give its storage too"):
        se_nas.SearchConfig(backbone="resnet18", study="one")


def test_results_are_of_a_folder_or_of_a_study_in_a_database():
    for words in (
        ["show"],
        ["show", "runs/a", "--storage", URL, "--study", "one"],
        ["show", "--storage", URL],
    ):
        result = CliRunner().invoke(app, words)
        assert isinstance(result.exception, ConfigError)
        assert "give either a run folder, or both --storage and --study" in str(result.exception)
    result = CliRunner().invoke(app, ["report", "--storage", URL, "--study", "one"])
    assert "needs --out" in str(result.exception)


def test_other_versions_of_what_makes_a_reading_are_refused_by_name(manifest):
    peers.check_versions(manifest)
    here = manifest.versions["torch"].partition("+")[0]
    # Builds for other devices are the same version.
    peers.check_versions(replace(manifest, versions={**manifest.versions, "torch": f"{here}+cu999"}))
    other = replace(
        manifest, se_nas_version="0.0.1", versions={**manifest.versions, "timm": "0.9.0", "numpy": "1.0"}
    )
    with pytest.raises(RunError) as caught:
        peers.check_versions(other)
    assert f"se-nas 0.0.1 against {se_nas.__version__} here; timm 0.9.0 against" in str(caught.value)
    assert "numpy" not in str(caught.value)


def test_another_kind_of_device_is_refused(manifest):
    on_gpu = replace(manifest, device=replace(manifest.device, type="cuda"))
    with pytest.raises(RunError, match="trains on cuda, but this worker would train on cpu"):
        peers.check_device(on_gpu, "cpu")
    peers.check_device(replace(manifest, device=replace(manifest.device, type="cpu")), "cpu")


def test_workers_share_a_folder_and_refuse_that_of_another_run(manifest, config, tmp_path):
    path = tmp_path / "runs" / "run"
    first, second = (peers.run_folder(path, config, manifest) for _ in range(2))
    assert first.path == second.path
    assert second.manifest == manifest
    assert json.loads((path / CONFIG).read_text())["study"] == "one"
    for other in (
        (config, replace(manifest, created="2026-01-02T00:00:00+00:00")),
        (config.model_copy(update={"study": "two"}), manifest),
    ):
        with pytest.raises(RunError, match="belongs to another run"):
            peers.run_folder(path, *other)
    assert (path / MANIFEST).is_file()
