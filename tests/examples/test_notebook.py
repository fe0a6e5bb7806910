"""The notebook runs from top to bottom, and says what its text promises."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

PATH = Path(__file__).parents[2] / "examples" / "first_steps.ipynb"


@pytest.mark.slow
def test_first_steps():
    notebook = nbformat.read(PATH, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    text = "".join(
        output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    )
    assert "Peak learning rate" in text
    assert "times too low" in text
    pictures = [o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert pictures


def test_is_committed_without_outputs():
    notebook = nbformat.read(PATH, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
