"""What is wrong with a server, a study or a cluster ends in one sentence and exit code 2, and nothing is written."""

import json
import os
import socket
import subprocess
import sys
import textwrap

import pytest
from postgres_server import PASSWORD
from small_cases import SEARCH

import se_nas
from se_nas.cli import main
from se_nas.study import peers, session
from se_nas.study.patience import Patience
from se_nas.study.plan import resolve
from se_nas.study.provenance import make_manifest

pytestmark = pytest.mark.cluster
NOBODY = "postgresql+psycopg://searcher@127.0.0.1:9/nas"
BEGIN = ("search", "--backbone", "test_resnet", "--objectives", "accuracy,params", "--trials", "3")


@pytest.fixture
def se(monkeypatch, capsys, tmp_path):
    """Runs ``se-nas`` in an empty folder; returns its error, which must be one sentence with exit code 2."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["se-nas", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capsys.readouterr().err
        assert stopped.value.code == 2, said
        error = said[said.index("error: ") :].strip()
        assert error.count("\n") == 0
        assert "Traceback" not in said
        assert PASSWORD not in said
        assert list(folder.iterdir()) == []
        return error

    return run


@pytest.fixture
def study(database_url, tmp_path):
    """The URL of a database with a study, one, that was begun; ``of`` changes its manifest first."""

    def of(**changes):
        given = {**SEARCH, "storage": database_url, "study": "one", "name": "run", "trials": 3}
        plan = resolve(se_nas.SearchConfig(**{**given, "runs": str(tmp_path / "runs")}))
        manifest = make_manifest(plan).updated(**changes)
        peers.create(plan, manifest, lambda store: None, Patience())
        return database_url

    return of


def named(url):
    return ("--storage", url, "--study", "one")


@pytest.mark.parametrize(
    "command",
    [BEGIN, ("worker",), ("worker", "--latency-only"), ("show",), ("export", "--out", "x"), ("compare",)],
    ids=" ".join,
)
def test_a_server_that_is_not_there(se, command):
    assert "Connection refused" in se(*command, *named(NOBODY))


@pytest.mark.parametrize("only", [(), ("--latency-only",)])
def test_what_a_worker_fails_of_is_its_last_event(capsys, monkeypatch, only):
    monkeypatch.setattr(sys, "argv", ["se-nas", "worker", *only, *named(NOBODY), "--json"])
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr()
    last = json.loads(said.out.splitlines()[-1])
    assert (stopped.value.code, last["event"], last["exit_code"]) == (2, "failed", 2)
    assert "Connection refused" in last["error"]
    assert said.err.endswith(f"error: {last['error']}\n")


@pytest.mark.parametrize("command", [BEGIN, ("worker",)], ids=["search", "worker"])
def test_a_wrong_password_and_a_database_without_rights(se, command, postgres, database_url, monkeypatch):
    name = database_url.rpartition("/")[2]
    role = f"guest_{name}"
    postgres.sql(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    guest = f"postgresql+psycopg://{role}@{postgres.host}/{name}"
    if command == BEGIN:
        assert "permission denied for schema public" in se(*command, *named(guest))
    else:
        assert "has no study 'one'" in se(*command, *named(guest))
    monkeypatch.setenv("PGPASSWORD", "battery-staple")
    assert "password authentication failed" in se(*command, *named(guest))


@pytest.fixture
def reader(postgres, database_url):
    """Makes a role that may do what is given with the tables that are there; returns the database's URL for it."""

    def make(*grants, **settings):
        name = database_url.rpartition("/")[2]
        role = f"reader_{name}"
        postgres.sql(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
        for grant in grants:
            postgres.sql(f"GRANT {grant} ON ALL TABLES IN SCHEMA public TO {role}", name)
        for setting, value in settings.items():
            postgres.sql(f"ALTER ROLE {role} SET {setting} = {value}")
        return f"postgresql+psycopg://{role}@{postgres.host}/{name}"

    return make


@pytest.mark.parametrize("command", [(*BEGIN, "--study", "two"), ("worker", "--study", "one")], ids=" ".join)
@pytest.mark.parametrize(
    ("grants", "settings", "refusal"),
    [
        (["SELECT"], {}, "permission denied for table "),
        (["SELECT", "INSERT"], {"default_transaction_read_only": "on"}, "in a read-only transaction"),
    ],
    ids=["role", "transactions"],
)
def test_who_may_only_read_is_refused_before_anything_else(
    se, study, reader, monkeypatch, command, grants, settings, refusal
):
    study()
    url = reader(*grants, **settings)

    def late(*_, **__):
        raise AssertionError("it was planned before")

    monkeypatch.setattr(session, "resolve", late)
    error = se(*command, "--storage", url)
    assert refusal in error
    assert f"{url} cannot be used: " in error
    assert peers.read(url, "one")[1].name == "run"


@pytest.mark.parametrize(
    ("schema", "remedy"),
    [
        ("v3.0.0.d", "Optuna's command storage upgrade brings it up to date"),
        ("v3.10.0.a", "Upgrade se-nas"),
        ("v4.0.0.a", "Upgrade se-nas"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [(*BEGIN, "--study", "two"), ("worker", "--study", "one"), ("show", "--study", "one")],
    ids=" ".join,
)
def test_a_database_with_another_schema(se, study, postgres, command, schema, remedy):
    url = study()
    postgres.sql(f"UPDATE alembic_version SET version_num = '{schema}'", url.rpartition("/")[2])
    assert se(*command, "--storage", url) == (
        f"error: {url} has Optuna's schema {schema}; this version of se-nas writes v3.2.0.a. {remedy}."
    )


def test_a_study_that_exists_already_or_is_of_another_version(se, study):
    url = study(se_nas_version="0.0.1")
    assert "study 'one' already exists" in se(*BEGIN, *named(url))
    error = se("worker", *named(url))
    assert f"study 'run' uses other versions: se-nas 0.0.1 against {se_nas.__version__} here" in error


def test_a_worker_without_the_data_or_with_other_images(se, study, tmp_path):
    url = study()
    assert str(tmp_path / "nowhere") in se("worker", *named(url), "--data", tmp_path / "nowhere")
    assert "has no study 'two'" in se("worker", "--storage", url, "--study", "two")


@pytest.fixture(scope="module")
def guarded():
    """The addresses of a Ray cluster that wants a token: for those who are part of it, and for Ray's client."""
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"""
        from ray.cluster_utils import Cluster
        node = {{"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 * 2**20}}
        made = Cluster(initialize_head=True, head_node_args={{**node, "ray_client_server_port": {port}}})
        print(made.address, flush=True)
        input()
        made.shutdown()
    """
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64, "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **secret}
    ) as process:
        yield process.stdout.readline().strip(), f"ray://127.0.0.1:{port}"
        process.communicate("\n")


def test_a_cluster_that_wants_another_token(se, guarded, monkeypatch):
    address, client = guarded
    monkeypatch.setenv("RAY_ADDRESS", address)
    for executor in ("ray", client):
        error = se(*BEGIN, "--executor", executor)
        assert error.startswith(
            f"error: Ray at {executor!r}: the cluster wants a token, and that of this process"
        )


def test_a_cluster_that_does_not_answer(se):
    pytest.importorskip("ray")
    assert "nothing answers at 'ray://127.0.0.1:9'" in se(*BEGIN, "--executor", "ray://127.0.0.1:9")
