"""Errors for packages of extras that are not installed."""

from __future__ import annotations

import sys

import pytest

from tokgen.extras import require


def test_missing_packages_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pesq", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'tokgen\[eval\]'"):
        require("pesq")


def test_errors_inside_a_package_stay_theirs(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_package'"):
        require("half_installed")
