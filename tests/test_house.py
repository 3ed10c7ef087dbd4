"""docs/house.md and the packages name every module, and modules list their public names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from makers.paths import ROOT

MODULES = sorted(p for p in (ROOT / "tokgen").rglob("*.py") if "__" not in p.name)
PACKAGES = sorted(path.parent for path in (ROOT / "tokgen").rglob("*/__init__.py"))


def test_the_house_names_every_file():
    house = (ROOT / "docs" / "house.md").read_text()
    named = set(re.findall(r"^ +(\S+\.py) ", house, re.MULTILINE))
    assert named == {p.name for p in (ROOT / "tokgen").rglob("*.py") if "__" not in p.name}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.name)
def test_a_package_lists_its_modules(package: Path):
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    listed = set(re.findall(r"^- `(\w+)/?` - ", text, re.MULTILINE))
    modules = {p.stem for p in package.glob("*.py")} - {"__init__"}
    assert listed == modules | {p.parent.name for p in package.glob("*/__init__.py")}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT / "tokgen")))
def test_a_module_lists_its_public_names(path: Path):
    tree = ast.parse(path.read_text())
    listed = next(
        (ast.literal_eval(node.value) for node in tree.body if _assigned(node) == ["__all__"]), []
    )
    defined = {name for node in tree.body for name in _assigned(node) if not name.startswith("_")}
    assert len(set(listed)) == len(listed) and set(listed) == defined


def _assigned(node: ast.stmt) -> list[str]:
    """Return the names that a statement defines; type variables do not count."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    if not isinstance(node, ast.Assign):
        return []
    if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "TypeVar":
        return []
    targets = [n for target in node.targets for n in ast.walk(target)]
    return [n.id for n in targets if isinstance(n, ast.Name)]
