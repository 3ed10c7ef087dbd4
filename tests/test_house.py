"""docs/house.md and the docstrings of the packages name every module."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from makers.paths import ROOT

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
