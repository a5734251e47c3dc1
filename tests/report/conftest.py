import pytest
from synthetic_run import write_run


@pytest.fixture
def make_run(tmp_path):
    """``make_run(name, trials=40, seeds=3, **manifest_fields)`` writes a realistic run folder."""

    def make(name="run", **options):
        return write_run(tmp_path / name, **options)

    return make
