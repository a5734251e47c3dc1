"""The tutorial: it runs from beginning to end, and is stored without what it printed."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(TUTORIAL, as_version=4)


def test_it_is_stored_without_output(notebook):
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


@pytest.mark.slow
@pytest.mark.timeout(900)
# Jupyter's client, not se-nas.
@pytest.mark.filterwarnings("default")
def test_it_runs(notebook, tmp_path):
    from nbclient import NotebookClient

    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pages = [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert any("P(front)" in page and "data:image/svg+xml" in page for page in pages)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert (tmp_path / "knee" / "model.safetensors").is_file()
    assert not [output for output in outputs if output.output_type == "error"]
