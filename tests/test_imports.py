"""Wrappers run around the import of a module."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tokgen.imports import wrap_import


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "tokgen_test_wrapped"
    (tmp_path / f"{name}.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_a_wrapper_runs_the_module_and_may_change_it(module: str):
    def double(execute, wrapped):
        execute(wrapped)
        wrapped.x *= 2

    wrap_import(module, double)
    assert module not in sys.modules
    assert __import__(module).x == 2
    sys.modules.pop(module)

    wrap_import(module, lambda execute, wrapped: setattr(wrapped, "x", 5))
    assert __import__(module).x == 5


def test_an_error_of_the_module_reaches_the_importer(module: str, tmp_path: Path):
    (tmp_path / f"{module}.py").write_text("raise OSError('no library')\n")
    wrap_import(module, lambda execute, wrapped: execute(wrapped))
    with pytest.raises(OSError, match="no library"):
        __import__(module)
    assert module not in sys.modules
