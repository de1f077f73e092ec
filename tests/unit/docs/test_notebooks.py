"""The notebooks of the documentation and their pages."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from docs.generate import notebooks
from docs.generate.__main__ import PAGES

if TYPE_CHECKING:
    from pathlib import Path


def test_every_notebook_has_a_page() -> None:
    assert sorted(path.stem for path in notebooks.FOLDER.glob("*.ipynb")) == sorted(notebooks.NAMES)
    assert {notebooks.page_name(name) for name in notebooks.NAMES} <= set(PAGES)


@pytest.mark.parametrize("name", notebooks.NAMES)
def test_a_notebook_is_valid_and_stored_without_an_error(name: str) -> None:
    import nbformat

    notebook = nbformat.read(notebooks.FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata == notebooks.METADATA
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert all(output.output_type != "error" for output in outputs)


@pytest.mark.parametrize("name", notebooks.NAMES)
def test_a_page_shows_code_and_links_to_pages(name: str) -> None:
    page = notebooks.page(name)
    assert "```python\nimport os" in page
    assert all(f"]({other}.ipynb" not in page for other in notebooks.NAMES)


def test_a_page_shows_tables_and_pictures_that_are_stored() -> None:
    page = notebooks.page("worth-of-a-forecast")
    assert "![Chart of the cell above](data:image/png;base64," in page
    assert "<table" in page
    assert "<style" not in page


def test_a_failing_command_of_a_cell_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient.exceptions import CellExecutionError

    cells = [nbformat.v4.new_code_cell("%%sh\nfalse")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=notebooks.METADATA), tmp_path / "one.ipynb")
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    with pytest.raises(CellExecutionError, match="false"):
        notebooks.run("one", dict(os.environ))
