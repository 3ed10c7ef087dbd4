"""The documentation covers the package, and its notebooks run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import tokgen
from makers.paths import ROOT

DOCS = ROOT / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def test_every_public_name_and_package_has_a_place_in_the_api() -> None:
    pages = {page.stem: page.read_text() for page in (DOCS / "api").glob("*.md")}
    names = re.findall(r"^::: tokgen\.(\w+)$", pages["index"], re.MULTILINE)
    assert sorted(names) == sorted(tokgen.__all__)
    packages = {path.parent.name for path in (ROOT / "tokgen").glob("*/__init__.py")} - {"cli"}
    assert packages == set(pages) - {"index", "modules"}
    modules = {p.stem for p in (ROOT / "tokgen").glob("*.py") if not p.stem.startswith("_")}
    assert modules == set(re.findall(r"^::: tokgen\.(\w+)$", pages["modules"], re.MULTILINE))


def test_the_links_of_the_readme_and_contributing_lead_somewhere() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for link in re.findall(r"\]\(([^)]+)\)", (ROOT / name).read_text()):
            path, _, anchor = link.partition("#")
            assert (ROOT / path).exists(), link
            if anchor:
                headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), re.MULTILINE)
                slugs = {re.sub(r"[^\w\- ]", "", h).lower().replace(" ", "-") for h in headings}
                assert anchor in slugs, link


def test_the_sample_report_is_small() -> None:
    assert (DOCS / "sample_report.html").stat().st_size < 1.5e6


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(notebook: Path) -> None:
    cells = json.loads(notebook.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code and all(not c["outputs"] and c["execution_count"] is None for c in code)
    imports = {line for c in code for line in "".join(c["source"]).splitlines() if "import" in line}
    assert imports == {
        "import tokgen",
        "import matplotlib.pyplot as plt",
        "from IPython.display import Audio",
    }


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    """In a copy, so that it does not find results of an earlier run."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    folder = tmp_path / "docs" / "notebooks"
    folder.mkdir(parents=True)
    content = nbformat.read(notebook, as_version=4)
    nbclient.NotebookClient(
        content, timeout=600, resources={"metadata": {"path": str(folder)}}
    ).execute()
    shown = [o for cell in content.cells for o in cell.get("outputs", ())]
    kinds = {kind for o in shown for kind in o.get("data", ())}
    assert {"image/png", "text/html"} <= kinds
    assert any("<audio" in o["data"].get("text/html", "") for o in shown if "data" in o)
