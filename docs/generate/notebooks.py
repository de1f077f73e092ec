"""Run the notebooks of the documentation against the running stack, and make pages of them.

`make notebooks` runs each and stores it with its outputs, which are in git, because a build of the documentation has no stack.
The libraries for notebooks are imported where they are used: they take a second of the processor, and whoever generates the
other pages needs none of them. What does not belong here: the notebooks themselves (`docs/notebooks`).
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from traitlets.config import Config

from btc_cli.options import open_stack
from stack.layout import python_path

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NAMES = ("first-look", "feature-to-challenger", "worth-of-a-forecast", "bad-day")
"""In the order in which a reader meets them."""
CELL_TIMEOUT_S = 900
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
"""What a stored notebook says about its kernel, without the version that this machine has."""
PICTURES_INSIDE = Config({"ExtractOutputPreprocessor": {"enabled": False}})
STYLE = re.compile(r"<style scoped>.*?</style>\n", re.DOTALL)
"""The looks of a table of pandas; the site has its own."""
HEAD = (
    "*This page is the notebook [{name}.ipynb](../notebooks/{name}.ipynb){outputs}. "
    "[Use it from Python](../how-to/python.md#notebooks) says how to run it.*\n\n"
)


def run(name: str, environ: dict[str, str]) -> Any:
    """The notebook of a name with the outputs of a new run, which works in a directory of its own.

    Raises `CellExecutionError` for a cell that fails.
    """
    import nbformat  # noqa: PLC0415 - as the head says
    from nbclient import NotebookClient  # noqa: PLC0415 - as the head says

    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    with tempfile.TemporaryDirectory(prefix="btc-notebook-") as directory:
        client = NotebookClient(
            notebook,
            timeout=CELL_TIMEOUT_S,
            startup_timeout=CELL_TIMEOUT_S,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": directory}},
        )
        client.execute(env=environ)
    notebook.metadata = METADATA
    return notebook


def page_name(name: str) -> str:
    """The name of the page of a notebook."""
    return f"notebook-{name}"


def page(name: str) -> str:
    """The notebook of a name, with its stored outputs, as a page; links to notebooks lead to their pages."""
    import nbformat  # noqa: PLC0415 - as the head says
    from nbconvert import MarkdownExporter  # noqa: PLC0415 - as the head says

    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    text, _resources = MarkdownExporter(config=PICTURES_INSIDE).from_notebook_node(notebook)
    for each in NAMES:
        text = text.replace(f"]({each}.ipynb", f"]({page_name(each)}.md")
    text = STYLE.sub("", text).replace("![png](", "![Chart of the cell above](")
    has_outputs = any(cell.get("outputs") for cell in notebook.cells)
    return (
        HEAD.format(
            name=name, outputs=" with the outputs of one run" if has_outputs else "; its outputs are not stored"
        )
        + text
    )


def main() -> int:
    """Run all notebooks against a stack; returns 1 and says why if a cell fails."""
    import nbformat  # noqa: PLC0415 - as the head says
    from nbclient.exceptions import CellExecutionError, CellTimeoutError  # noqa: PLC0415 - as the head says

    parser = argparse.ArgumentParser(prog="make notebooks")
    parser.add_argument("--data-dir", type=Path, help="of the stack; default: the one that was started last")
    parser.add_argument("--check", action="store_true", help="store no outputs")
    options = parser.parse_args()
    stack = open_stack(options.data_dir)
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    api = stack.settings.api
    environ = {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": python_path(),
        "BTC_DATA_DIR": str(stack.layout.data_dir.resolve()),
        "API_URL": api.url,
        "COLUMNS": "100",
        "NO_COLOR": "1",
    }
    for name in NAMES:
        try:
            notebook = run(name, environ)
        except (CellExecutionError, CellTimeoutError) as error:
            sys.stderr.write(f"notebooks: {name}.ipynb: {error}\n")
            return 1
        if not options.check:
            nbformat.write(notebook, FOLDER / f"{name}.ipynb")
        sys.stdout.write(f"{name}.ipynb ran\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
