"""Run folders and pages for the tests of the report."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from makers.pages import page_of
from makers.runs import make_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A comparison run that a test may change."""
    return make_run(tmp_path / "compare")


@pytest.fixture
def samples_run(run: Path) -> Path:
    """The same without figures, which take longest to draw."""
    shutil.rmtree(run / "cells")
    shutil.rmtree(run / "telephone")
    return run


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison run for all tests; do not change it."""
    return make_run(tmp_path_factory.mktemp("runs") / "compare")


@pytest.fixture(scope="session")
def plain_page(plain_run: Path) -> str:
    """The HTML of the page of `plain_run`."""
    return page_of(plain_run)
