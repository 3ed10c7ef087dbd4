"""Tests of the whole page: its text, sections, policy, and how it is written."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from makers.pages import data_of, page_of, sounds_of, text_of
from makers.runs import RATE, add_drift_audio, estimate, make_drift, make_run, put
from tokgen.audio.files import read_audio
from tokgen.cli import main as cli
from tokgen.report.clips import make_sounds
from tokgen.report.page import is_report, titles, write_report


def test_tables_show_estimates_verdicts_and_notes(plain_page: str):
    said = text_of(plain_page)
    for part in (
        "PESQ (MOS) ↑ , higher is better",
        "2.90 [2.80, 3.00] n 18",
        "1.25 [1.15, 1.35] n 16, 2 failed",
        "speech-16k generated 1.25 [1.15, 1.35] n 16, 2 failed –",  # SI-SDR does not apply
        "−1.65 [−1.75, −1.55] n 18 0.10 worse",
        "pesq (P.862.2)",
        "Margins were set before the run.",
        "Token telephone",
        "speech-16k 16000 none none CC0-1.0 8dcc74f1",
        "settings.rates 1, 2",
        "settings.model.dim none",
        "versions.torch 2.13.0",
    ):
        assert part in said, part


def test_detailed_metrics_are_folded_and_missing_cells_are_marked(
    run: Path, tmp_path: Path, capsys
):
    table = json.loads((run / "table.json").read_text())
    level = {"name": "accuracy_level0", "label": "level 0", "better": "higher", "detail": True}
    table["metrics"].append({**level, "unit": "", "backend": "", "digits": 3})
    table["rows"][2]["values"]["accuracy_level0"] = estimate(0.25)
    pair = {**table["differences"][0], **estimate(0.05, 0.01), "metric": "accuracy_level0"}
    table["differences"].append(pair)
    put(run / "table.json", table)
    index = json.loads((run / "samples/index.json").read_text())
    last = index["columns"][-1]["name"]
    del index["clips"][1]["files"][last]
    put(run / "samples/index.json", index)
    page = page_of(run)
    folded = text_of(page[page.index("Detailed metrics") :].partition("</details>")[0])
    assert "0.250 [0.150, 0.350]" in folded and "0.050 [0.040, 0.060]" in folded
    assert "PESQ" not in folded
    assert text_of(page).count("level 0") == 3  # all of them folded: summary, column, difference
    assert "not made" in page and "could not be read" not in page
    assert cli.main(["report", str(run), "--out", str(tmp_path / "p.html")]) == 0
    assert "missing" not in "".join(capsys.readouterr())


def test_bars_of_a_column_share_one_scale(plain_page: str):
    cells = re.findall(r'<svg class="bar".*?</svg>', plain_page, re.S)
    pesq = [c for c in cells if "mark" not in c][:4]  # of original and resynthesis
    means = [float(re.search(r'circle cx="([\d.]+)%', c)[1]) for c in pesq]
    assert means[0] == 98  # the highest of PESQ
    expected = 2 + 96 * (2.9 - 1.15) / (4.64 - 1.15)
    assert means[1] == pytest.approx(expected, abs=0.01)


def test_drift_page(tmp_path: Path):
    folder = make_drift(tmp_path / "drift")
    add_drift_audio(folder, {"speech-16k": RATE, "opus_12": 24000})
    page = page_of(folder)
    said = text_of(page)
    assert "2.40 [2.30, 2.50] (1 failed)" in said  # n is shown only if clips are missing
    assert "bad.wav: empty" in said and "PESQ @ 5" in said
    labels = re.findall(r'<svg viewBox="[^"]*" role="img" aria-label="([^"]*)"', page)
    assert labels[0] == "PESQ against passes. speech-16k: 2.8 to 2; opus:12: 2.8 to 2."
    assert len(labels) == 6
    found = data_of(page)["listenings"][0]
    assert [c["name"] for c in found["columns"]] == [
        "original",
        *("speech-16k pass 1", "speech-16k pass 5", "opus:12 pass 1", "opus:12 pass 5"),
    ]
    assert [c["id"] for c in found["clips"]] == ["a", "b"]
    widest, rate = read_audio(sounds_of(page)["audio-0-0-0"])
    assert rate == 24000 and widest.shape == (1, 14400)


def test_page_of_several_runs_has_unique_ids(run: Path, tmp_path: Path):
    other = make_run(tmp_path / "b" / "compare")
    page = page_of(run, make_drift(tmp_path / "drift"), other, clips=1)
    ids = re.findall(r'<[^>]*\sid="([^"]*)"', page)
    assert len(ids) > 50 and len(set(ids)) == len(ids)
    links = re.findall(r'href="#([^"]*)"', page)
    assert set(links) <= set(ids) and {"run-0", "run-1", "run-2", "training"} <= set(links)
    assert "compare (1)" in page and "compare (2)" in page
    assert "compare (2) / log mel" in page
    assert titles(["a", "b", "a"]) == ["a (1)", "b", "a (2)"]


def test_policy_allows_only_the_script_of_the_page(plain_page: str):
    policy = html.unescape(re.search(r'Security-Policy" content="([^"]*)"', plain_page)[1])
    script = re.findall(r"<script>(.*?)</script>", plain_page, re.S)
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert len(script) == 1 and f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';") and "unsafe-inline" not in policy.split(";")[1]
    assert not re.search(r'(src|href)="(?!data:|#)', plain_page)


def test_page_is_deterministic(plain_run: Path, plain_page: str):
    assert page_of(plain_run) == plain_page


def test_default_path(samples_run: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", str(samples_run), "--clips", "1"]) == 0
    assert (samples_run / "report.html").stat().st_size > 10_000
    assert str(samples_run / "report.html") in capsys.readouterr().out
    assert cli.main(["report", str(samples_run), str(samples_run), "--clips", "0"]) == 0
    assert (tmp_path / "report.html").is_file()


def test_n_clips_limits_the_audio(samples_run: Path):
    page = page_of(samples_run, clips=1)
    assert len(sounds_of(page)) == 4 and "the first 1 of 3 utterances." in page
    assert not sounds_of(page_of(samples_run, clips=0))


def test_failed_write_keeps_the_old_page(samples_run: Path, tmp_path: Path, monkeypatch):
    out = tmp_path / "x.html"
    out.write_text("before")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report([samples_run], out, overwrite=True, progress=False)
    assert out.read_text() == "before" and not list(tmp_path.glob("*.partial"))


def test_wrong_arguments_are_named(plain_run: Path, tmp_path: Path, capsys):
    out = tmp_path / "x.html"
    assert cli.main(["report", str(plain_run), "--out", str(out), "--clips", "-1"]) == 2
    assert "clips is -1, but must be at least 0" in capsys.readouterr().err
    assert cli.main(["report", str(plain_run), "--out", str(tmp_path)]) == 2
    assert "is a folder: give a file" in capsys.readouterr().err
    with pytest.raises(ValueError, match="pass at least one folder"):
        write_report([], out)


def test_failures_are_listed_with_clip_and_reason(run: Path):
    content = json.loads((run / "table.json").read_text())
    row = content["rows"][0]["name"]
    failure = {"clip": "clip7", "row": row, "metric": "si_sdr", "reason": "silent"}
    content["failures"] = [failure, *({**failure, "clip": f"c{i}"} for i in range(300))]
    put(run / "table.json", content)
    said = text_of(page_of(run))
    assert "Failed values: 301 Failed values clip row metric reason" in said
    assert f"clip7 {row} SI-SDR silent" in said
    assert "– n 0, 18 failed" in said
    assert "c198" in said and "c199" not in said and "the first 200; the run's files" in said


@pytest.mark.parametrize("kind", ["original", "resynthesis"])
def test_what_does_not_apply_is_no_failure(kind: str, run: Path):
    content = json.loads((run / "table.json").read_text())
    (row,) = (row for row in content["rows"] if row["kind"] == kind)
    row["values"]["si_sdr"] = estimate(None, n=0, n_failed=6)
    put(run / "table.json", content)
    page = page_of(run)
    assert "6 failed" not in text_of(page) and "Failed values" not in page


def test_failed_drift_values_are_listed(tmp_path: Path):
    folder = make_drift(tmp_path / "drift")
    assert "Failed values" not in page_of(folder)  # files of older versions have no reasons
    content = json.loads((folder / "drift.json").read_text())
    failure = {"clip": "a", "pass": 3, "metric": "pesq", "reason": "no utterance"}
    content["codecs"][1]["failures"] = [failure]
    put(folder / "drift.json", content)
    assert "Failed values: 1" in text_of(page_of(folder))
    assert "a opus:12, pass 3 PESQ no utterance" in text_of(page_of(folder))


def test_a_page_of_ours_is_replaced_and_other_files_are_kept(samples_run: Path, tmp_path: Path):
    ours, other = tmp_path / "ours.html", tmp_path / "other.html"
    short = {"clips": 0, "progress": False}
    write_report(samples_run, ours, **short)
    write_report(samples_run, ours, **short)
    other.write_text("<!doctype html><p>mine")
    with pytest.raises(FileExistsError, match=r"other.html already exists"):
        write_report(samples_run, other, **short)
    assert other.read_text() == "<!doctype html><p>mine"
    write_report(samples_run, other, overwrite=True, **short)
    assert is_report(other)


def test_an_unwritable_page_is_refused_before_the_runs_are_read(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="file"):
        write_report(tmp_path / "no run", tmp_path / "file" / "page.html")
    with pytest.raises(ValueError, match=r"must end in .html"):
        write_report(tmp_path / "no run", tmp_path / "page.txt")


def test_a_run_that_is_deleted_meanwhile_is_named(run: Path, tmp_path: Path, monkeypatch):
    def delete(*arguments):
        shutil.rmtree(run, ignore_errors=True)
        return make_sounds(*arguments)

    monkeypatch.setattr("tokgen.report.page.make_sounds", delete)
    with pytest.raises(FileNotFoundError, match="compare was deleted while its report was made"):
        write_report(run, progress=False)
    assert not run.exists()


def test_sections_and_menu_are_in_the_same_order(run: Path, tmp_path: Path):
    make_drift(run / "drift")
    add_drift_audio(run / "drift", {"speech-16k": RATE})
    for page in (page_of(run), page_of(run, make_run(tmp_path / "b" / "other"))):
        menu = re.findall(r'href="#([^"]*)"', page[page.index("<nav") : page.index("</nav>")])
        ids = re.findall(r'<[^>]*\sid="([^"]*)"', page)
        places = [ids.index(target) for target in menu]
        assert places == sorted(places) and "training" in menu and "run-0-settings" in menu


def test_drift_values_are_open(tmp_path: Path):
    page = page_of(make_drift(tmp_path / "drift"))
    assert re.findall(r"<details open>\s*<summary>(.*?)<", page) == ["Drift values"]


def test_names_cannot_change_other_text(tmp_path: Path):
    marks = "\x1b[31m\x07\x00\u202e\u2066\u200f\u061c"
    run = make_run(tmp_path / "r", say=lambda text: f"{marks}{text}", n_clips=1)
    page = page_of(run)
    assert not set(marks.replace("[31m", "")) & set(page)
    assert "\ufffd[31m" in page
    assert not [c for c in json.dumps(data_of(page), ensure_ascii=False) if c in "\u202e\u2066"]


def test_the_conditions_of_drift_are_named(tmp_path: Path):
    folder = make_drift(tmp_path / "drift")
    content = json.loads((folder / "drift.json").read_text())
    content["codecs"][0]["conditions"] = "first 5 s of clips, levels not matched"
    put(folder / "drift.json", content)
    assert "; first 5 s of clips, levels not matched; delay" in page_of(folder)
