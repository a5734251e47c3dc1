import signal

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is the machine's affair, and says nothing about what is tested. Examples are the same each
# time: a change is refused for what it broke, not for what nobody had drawn before.
settings.register_profile(
    "same", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True, database=None
)
settings.register_profile("new", settings.get_profile("same"), derandomize=False)
settings.load_profile("same")

# A script that is started in the background ignores Ctrl-C, and so would what the tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Tests for a GPU skip with the reason where there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and this machine has none"))


@pytest.fixture
def quiet_compiler(monkeypatch):
    """torch.compile's trace of itself, which pytest would format for its report, takes fifty times its own time."""
    import logging

    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """One thread, so that results do not depend on the machine and tests side by side do not disturb each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def _lines_of_any_length():
    """Output as in a pipe, wherever the tests run: with COLUMNS set, lines would break there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        yield


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server, of which the environment knows the password."""
    from postgres_server import PASSWORD, Server

    server = Server()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", PASSWORD)
        yield server
    server.remove()


@pytest.fixture
def database_url(postgres, request):
    """An empty database."""
    return postgres.new_database(f"test_{hash(request.node.nodeid) & 0xFFFFFFFF:x}")
