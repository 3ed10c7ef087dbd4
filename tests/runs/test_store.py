"""Results of single clips are found under the plan that they depend on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tokgen.runs.store import ClipStore, RecordStore, plan_path


def test_results_of_the_plan_of_an_earlier_version_are_used(tmp_path: Path) -> None:
    ClipStore(tmp_path, "x", ["old"]).write(0, {"a": np.ones(1)})
    RecordStore(tmp_path, "x", ["old"]).append({"n": 1})
    assert ClipStore(tmp_path, "x", ["new"], former=["old"]).read(0) is not None
    store = RecordStore(tmp_path, "x", ["new"], former=["old"])
    store.append({"n": 2})
    assert RecordStore(tmp_path, "x", ["old"]).records == [{"n": 1}, {"n": 2}]
    # Those of the plan itself come first, and another plan has none.
    assert ClipStore(tmp_path, "x", ["new"]).read(0) is None
    assert ClipStore(tmp_path, "x", ["new"], former=["old"]).read(0) is None
    assert RecordStore(tmp_path, "y", ["new"], former=["old"]).records == []
    assert plan_path(tmp_path, "x", None) != plan_path(tmp_path, "x", ["old"])
