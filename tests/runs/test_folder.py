"""Files of a run's folder."""

from __future__ import annotations

from tokgen.runs.folder import append_history, clear_results, read_history


def test_history_drops_the_line_that_a_kill_cut(tmp_path):
    path = tmp_path / "history.jsonl"
    append = append_history(path, [{"step": 1, "loss": 2.0}])
    append({"step": 2, "loss": 1.5})
    path.write_text(path.read_text() + '{"step": 3, "lo')
    assert read_history(path) == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}]


def test_clearing_results_deletes_only_the_named_files_of_a_run(tmp_path):
    for name in ("table.json", "cells/a/model", "drift/clips/0", "drift/audio/x.wav", "own.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    names = ("table.json", "drift/audio", "absent", "absent/too")
    clear_results(tmp_path, names)
    assert (tmp_path / "table.json").is_file()  # without settings.json this is no run
    (tmp_path / "settings.json").write_text("{}")
    clear_results(tmp_path, names)
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {"settings.json", "cells/a/model", "drift/clips/0", "own.txt"}
