"""Errors for packages of extras that are not installed."""

from __future__ import annotations

import sys

import pytest

from tokgen.extras import require, require_legacy


def test_missing_packages_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pesq", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'tokgen\[eval\]'"):
        require("pesq")


def test_missing_pkg_resources_names_the_fix(monkeypatch):
    monkeypatch.setitem(sys.modules, "pkg_resources", None)
    for name in [name for name in sys.modules if name.split(".")[0] == "pyworld"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModuleNotFoundError, match="pip install 'setuptools<81'"):
        require_legacy("pyworld")
    monkeypatch.setitem(sys.modules, "pyworld", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'tokgen\[eval\]'"):
        require_legacy("pyworld")
