"""The report page: what is read, drawn and embedded, and what is refused."""

from __future__ import annotations

import base64
import copy
import hashlib
import html
import io
import json
import math
import os
import re
import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from makers.runs import EDGE, RATE, add_drift_audio, estimate, make_drift, make_run, put, tone
from tokgen.audio.files import read_audio, write_audio
from tokgen.cli import main as cli
from tokgen.codec_training.augment import K_FILTERS
from tokgen.drift.phase import Correlation, PhaseSummary
from tokgen.drift.summary import DriftDifference, DriftSummary, Point
from tokgen.metrics.statistics import Estimate
from tokgen.report.clips import integrated_loudness, low_pass, spectrograms
from tokgen.report.encoding import AudioFormat
from tokgen.report.figures import training_pictures
from tokgen.report.page import titles, write_report
from tokgen.report.reader import read_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "compare")


def page_of(*folders: Path, **options) -> str:
    out = folders[0].parent / "report.html"
    write_report(folders, out, progress=False, **options)
    return out.read_text("utf-8")


def text_of(page: str) -> str:
    """What a page says, without its scripts and styles."""
    page = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def data_of(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="report-data">(.*?)</script>', page)
    return json.loads(found[1])


def sounds_of(page: str) -> dict[str, bytes]:
    found = re.findall(r'<script type="application/octet-stream" id="(.*?)">(.*?)</script>', page)
    return {name: base64.b64decode(audio) for name, audio in found}


# -- reading back ---------------------------------------------------------------


def test_summaries_are_read_back_as_they_were_written():
    known, unknown = Estimate(1.5, 1.0, 2.0, 8, 1), Estimate(math.nan, math.nan, math.nan, 0, 8)
    points = [Point("x", 1, "pesq", None, known), Point("x", 2, "pesq", 3, unknown)]
    summary = DriftSummary("x", {"sample_rate": 16000}, 4e3, "0", 0, 8, 9, points, ["a: b"])
    again = DriftSummary.from_dict(json.loads(json.dumps(summary.as_dict())))
    assert repr(again) == repr(summary)
    phase = PhaseSummary("x", [-4, 4], [-0.25, 0.25], [known, known], known, [known])
    assert PhaseSummary.from_dict(json.loads(json.dumps(phase.as_dict()))) == phase
    correlation = Correlation([("x", 0.1, 2.0)], 25, 0.5, 0.1, 0.7)
    assert Correlation.from_dict(json.loads(json.dumps(vars(correlation)))) == correlation
    difference = DriftDifference("x", "y", 2, "pesq", known)
    assert DriftDifference.from_dict(json.loads(json.dumps(difference.as_dict()))) == difference
    with pytest.raises(ValueError, match="1 matches for 2 shifts"):
        PhaseSummary.from_dict({"name": "x", "shifts_ms": [1, 2], "match": [vars(known)]})


def test_a_run_is_read_whole(run: Path):
    found = read_run(run, n_clips=2)
    assert [row.kind for row in found.table.rows] == ["original", "resynthesis", "generated"]
    assert found.table.rows[2].values["pesq"] == Estimate(1.25, 1.15, 1.35, 16, 2)
    assert math.isnan(found.table.rows[2].values["si_sdr"].mean)
    assert set(found.histories) == {"log mel", "mfcc"}
    assert len(found.listenings[0].clips) == 2 and found.listenings[0].n_clips_found == 3
    assert found.telephone.curves[0].points[7][0] == 8
    assert found.documents["settings.json"]["codec"]["weight_hash"] == "8dcc74f1"


def test_metrics_json_of_a_simple_run(tmp_path: Path):
    values = {"cer": {**estimate(0.03, 0.01), "backend": "moonshine"}, "pesq": estimate(1.5)}
    rows = {"generated": values, "original": values, "unconditional": values}
    put(tmp_path / "r" / "metrics.json", {"rows": rows, "codec": "speech-16k", "steps": 3})
    table = read_run(tmp_path / "r").table
    assert [(r.name, r.kind) for r in table.rows][::2] == [
        ("original", "original"),
        ("unconditional", "generated"),
    ]
    assert [(m.label, m.better, m.digits) for m in table.metrics] == [
        ("CER", "lower", 3),
        ("PESQ", "higher", 2),
    ]
    assert "CER moonshine" in text_of(page_of(tmp_path / "r"))


# -- what the page says ---------------------------------------------------------


def test_tables_say_means_intervals_counts_verdicts_and_notes(run: Path):
    said = text_of(page_of(run))
    for part in (
        "PESQ (MOS) ↑ , higher is better",
        "2.90 [2.80, 3.00] n 18",
        "1.25 [1.15, 1.35] n 16, 2 failed",
        "– n 0, 18 failed",
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


def test_details_are_folded_away_and_cells_that_were_not_made_are_no_problem(
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
    folded = text_of(page[page.index("In detail") :].partition("</details>")[0])
    assert "0.250 [0.150, 0.350]" in folded and "0.050 [0.040, 0.060]" in folded
    assert "PESQ" not in folded
    assert text_of(page).count("level 0") == 3  # all of them folded: summary, column, difference
    assert "not made" in page and "that could not be read" not in page
    assert cli.main(["report", str(run), "--out", str(tmp_path / "p.html")]) == 0
    assert "missing" not in "".join(capsys.readouterr())


def test_trainings_stand_in_the_order_they_were_made(run: Path):
    for i, name in enumerate(("mfcc", "log mel")):
        path = run / "cells" / name / "history.jsonl"
        os.utime(path, (1000 + i, 1000 + i))
    assert list(read_run(run).histories) == ["mfcc", "log mel"]


def test_bars_are_scaled_over_their_column(run: Path):
    page = page_of(run)
    cells = re.findall(r'<svg class="bar".*?</svg>', page, re.S)
    pesq = [c for c in cells if "mark" not in c][:4]  # original, resynthesis and its SI-SDR
    means = [float(re.search(r'circle cx="([\d.]+)%', c)[1]) for c in pesq]
    assert means[0] == 98  # the highest of PESQ
    expected = 2 + 96 * (2.9 - 1.15) / (4.64 - 1.15)
    assert means[1] == pytest.approx(expected, abs=0.01)


def test_drift_page_has_curves_numbers_and_columns(tmp_path: Path):
    folder = make_drift(tmp_path / "drift")
    add_drift_audio(folder, {"speech-16k": RATE, "opus_12": 24000})
    page = page_of(folder)
    said = text_of(page)
    assert "2.40 [2.30, 2.50] (1 failed)" in said  # n is said only where it is not all clips
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


def test_a_run_may_hold_a_drift_folder(run: Path):
    make_drift(run / "drift")
    add_drift_audio(run / "drift", {"speech-16k": RATE})
    found = read_run(run)
    assert [listening.title for listening in found.listenings] == ["Samples", "Drift passes"]
    assert found.phase is not None and found.drift is not None


def test_several_runs_have_a_section_each_and_no_id_twice(run: Path, tmp_path: Path):
    other = make_run(tmp_path / "b" / "compare")
    page = page_of(run, make_drift(tmp_path / "drift"), other)
    ids = re.findall(r'<[^>]*\sid="([^"]*)"', page)
    assert len(ids) > 50 and len(set(ids)) == len(ids)
    links = re.findall(r'href="#([^"]*)"', page)
    assert set(links) <= set(ids) and {"run-0", "run-1", "run-2", "training"} <= set(links)
    assert "compare (1)" in page and "compare (2)" in page
    assert "compare (2) / log mel" in page
    assert titles(["a", "b", "a"]) == ["a (1)", "b", "a (2)"]


def test_the_policy_allows_the_script_of_the_page_alone(run: Path):
    page = page_of(run)
    policy = html.unescape(re.search(r'Security-Policy" content="([^"]*)"', page)[1])
    script = re.findall(r"<script>(.*?)</script>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert len(script) == 1 and f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';") and "unsafe-inline" not in policy.split(";")[1]
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_the_same_folders_give_the_same_page(run: Path):
    assert page_of(run) == page_of(run)


def test_names_are_no_mathematics_and_figures_follow_the_theme():
    history = [{"step": float(s), "loss": 1 / s, "accuracy/level0": 0.1} for s in range(1, 9)]
    picture = training_pictures(['a$b$"<'], [history], "salt")[0]
    assert 'aria-label="Training loss against steps. a$b$&#34;&lt;: 8 steps."' in picture.svg
    assert "var(--series-0)" in picture.svg and "currentColor" in picture.svg
    assert "#000000" not in picture.svg and "#1f4e9c" not in picture.svg
    assert "<text" in picture.svg and "xmlns:dc" not in picture.svg


def test_long_histories_are_thinned_but_keep_validations():
    history = [{"step": float(s), "loss": 1.0 + s % 7} for s in range(1, 20_001)]
    for row in history[999::1000]:
        row["validation/loss"] = 2.0
    picture = training_pictures(["x"], [history], "salt")[0]
    assert len(picture.svg) < 60_000
    assert picture.svg.count("<use") >= 20


# -- sounds ---------------------------------------------------------------------


def exact_loudness(samples: np.ndarray) -> float:
    """BS.1770 by its filters, at 48 kHz."""
    for numerator, denominator in K_FILTERS:
        samples = lfilter(numerator, denominator, samples)
    blocks = [samples[i : i + 19200] for i in range(0, len(samples) - 19200 + 1, 4800)]
    power = np.array([np.mean(block**2) for block in blocks])
    level = -0.691 + 10 * np.log10(power + 1e-20)
    power = power[level > -70]
    level = -0.691 + 10 * np.log10(power)
    gate = -0.691 + 10 * np.log10(power.mean()) - 10
    return -0.691 + 10 * np.log10(power[level > gate].mean())


def test_loudness_is_that_of_the_standard_with_its_gates():
    noise = torch.randn(1, 48_000 * 4, generator=torch.Generator().manual_seed(0)) * 0.1
    noise[:, 60_000:120_000] *= 0.003  # a pause, which the relative gate leaves out
    found = integrated_loudness(noise, 48_000)
    assert found == pytest.approx(exact_loudness(noise[0].double().numpy()), abs=0.05)
    assert integrated_loudness(tone(997, 3, 1.0, 48_000), 48_000) == pytest.approx(-3.01, abs=0.03)
    assert integrated_loudness(torch.zeros(1, 48_000), 48_000) == -math.inf
    assert integrated_loudness(tone(997, 0.2, 1.0, 48_000), 48_000) == pytest.approx(-3, abs=0.1)


def test_columns_of_an_utterance_have_the_loudness_of_its_original(run: Path):
    page = page_of(run)
    sounds = sounds_of(page)
    assert len(sounds) == 3 * 4  # with a low anchor each
    loudness = {k: integrated_loudness(read_audio(v)[0], RATE) for k, v in sounds.items()}
    assert max(loudness.values()) - min(loudness.values()) < 0.02
    original = (run / "samples" / "000.original.wav").read_bytes()
    kept, _ = read_audio(original)
    assert torch.equal(read_audio(sounds["audio-0-0-0"])[0], kept)  # bit for bit
    facts = data_of(page)["settings"]["audio"]["sounds"]
    generated = next(f for f in facts if f["column"] == "speech-16k generated")
    first = next(f for f in facts if f["column"] == "original")
    gained = first["loudness_lufs"] - generated["loudness_lufs"]
    assert generated["gain_db"] == pytest.approx(gained, abs=0.02) and gained > 8
    assert first["gain_db"] == 0
    assert f'title="speech-16k generated: gain {generated["gain_db"]:.1f} dB, 16000 Hz' in page


def test_all_are_lowered_together_where_one_would_clip(tmp_path: Path):
    run = make_run(tmp_path / "r", n_clips=1)
    spiky = tone(900, 0.6, 0.05)
    spiky[0, 100:104] = 0.9  # quiet, so it is raised, and its peak with it
    write_audio(run / "samples" / "000.generated.wav", spiky, RATE)
    page = page_of(run)
    waves = [read_audio(v)[0] for v in sounds_of(page).values()]
    assert max(float(w.abs().max()) for w in waves) == pytest.approx(1.0, abs=1e-3)
    facts = data_of(page)["settings"]["audio"]["sounds"]
    assert facts[0]["gain_db"] < -5
    loudness = [integrated_loudness(w, RATE) for w in waves]
    assert max(loudness) - min(loudness) < 0.1


def test_silence_and_utterances_without_original_stay_as_they_are(tmp_path: Path):
    run = make_run(tmp_path / "r", n_clips=2)
    write_audio(run / "samples" / "000.generated.wav", torch.zeros(1, 9600), RATE)
    (run / "samples" / "001.original.wav").unlink()
    page = page_of(run)
    gains = {(f["utterance"], f["column"]): f for f in data_of(page)["settings"]["audio"]["sounds"]}
    silent = gains["clip0", "speech-16k generated"]
    assert silent["gain_db"] == 0 and silent["loudness_lufs"] is None
    assert gains["clip1", "speech-16k generated"]["gain_db"] == 0
    assert ("clip1", "low anchor") not in gains


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_the_low_anchor_ends_at_3500_hz(rate: int):
    impulse = torch.zeros(1, 2 * rate)
    impulse[0, rate] = 1.0
    gain = np.abs(np.fft.rfft(low_pass(impulse, rate)[0].numpy()))[::2]  # one a hertz
    assert np.abs(20 * np.log10(gain[:3501])).max() < 0.1
    assert 20 * np.log10(gain[4000:].max()) < -50


def test_the_anchor_of_an_utterance_is_its_original_without_the_top(run: Path):
    anchor, rate = read_audio(sounds_of(page_of(run))["audio-0-0-anchor"])
    spectrum = np.abs(np.fft.rfft(anchor[0, 1000:9000].numpy() * np.hanning(8000)))
    assert spectrum[int(EDGE / 2)] < 1e-3 * spectrum[150] and rate == RATE


@pytest.mark.parametrize(("rate", "n"), [(16000, 20_001), (44100, 33_333), (48000, 500)])
def test_opus_keeps_length_and_place(rate: int, n: int):
    noise = torch.randn(1, n, generator=torch.Generator().manual_seed(1)) * 0.1
    wave = low_pass(noise, rate)
    again, opus_rate = read_audio(AudioFormat("opus", 64).encode(wave, rate), name="x.opus")
    assert opus_rate == 48_000 and again.shape[-1] == -(-n * 48_000 // rate)
    back, _ = read_audio(AudioFormat("opus", 64).encode(wave, rate), sample_rate=rate, name="x.ogg")
    size = min(back.shape[-1], n)
    a, b = (np.fft.rfft(w[0, :size].numpy(), 2 * size) for w in (wave, back))
    assert np.argmax(np.fft.irfft(a.conj() * b)) == 0


def test_opus_makes_the_page_smaller(tmp_path: Path):
    run = make_run(tmp_path / "r", seconds=3.0)
    wav, opus = page_of(run), page_of(run, audio=AudioFormat("opus", 24))
    embedded = [sum(map(len, sounds_of(page).values())) for page in (wav, opus)]
    assert embedded[1] < embedded[0] / 5
    assert "Opus at 24 kbps" in text_of(opus) and "16-bit WAV" in text_of(wav)


def test_spectrograms_share_seconds_hertz_and_decibels():
    waves = [(tone(2000, 1.0).numpy()[0], RATE), (tone(2000, 0.5, 0.002).numpy()[0], RATE)]
    waves.append((tone(2000, 1.0, rate=8000).numpy()[0], 8000))
    pictures = [
        matplotlib.image.imread(io.BytesIO(base64.b64decode(uri.split(",")[1])))[..., :3].sum(-1)
        for uri in spectrograms(waves)
    ]
    assert all(p.shape == (96, 320) for p in pictures)
    full, faint, narrow = pictures
    row = 95 - 96 * 2000 // 8000
    assert full[row - 1 : row + 2].max() > 2.5  # 2 kHz of 8, from below
    assert 0.3 < faint[row - 1 : row + 2, :150].max() < 1.8  # 40 dB under it
    assert faint[:, 170:].max() < 0.05  # half as long
    assert narrow[: 96 // 2 - 2].max() < 0.05  # nothing over its 4 kHz
    assert np.argmax(narrow.mean(1)) == pytest.approx(row, abs=1)


# -- bounds, files, errors ------------------------------------------------------


def test_no_path_from_a_file_is_followed(run: Path, tmp_path: Path):
    secret = tmp_path / "secret.wav"
    write_audio(secret, tone(440, 0.6), RATE)
    (run / "samples" / "link.wav").symlink_to(secret)
    index = json.loads((run / "samples" / "index.json").read_text())
    names = [c["name"] for c in index["columns"]]
    for clip, tried in zip(
        index["clips"],
        (["../../secret.wav", str(secret), "link.wav"], ["", "..", "x" * 300], [None, 3, "a\0b"]),
        strict=True,
    ):
        clip["files"] = dict(zip(names, tried, strict=True))
    put(run / "samples" / "index.json", index)
    out = tmp_path / "x.html"
    written = write_report([run], out, progress=False)
    assert written.n_sounds == 0 and len(written.problems) == 9
    assert not sounds_of(out.read_text())


def test_damaged_audio_is_reported_and_its_cell_says_missing(run: Path, tmp_path: Path, capsys):
    (run / "samples" / "000.generated.wav").write_bytes(b"RIFF")
    (run / "samples" / "001.resynthesis.wav").unlink()
    out = tmp_path / "deep" / "x.html"
    assert cli.main(["report", str(run), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "missing clip0, speech-16k generated: cannot read 000.generated.wav" in said.err
    assert "missing clip1, speech-16k resynthesis" in said.err and "no such file" in said.err
    assert re.search(
        r"x\.html: \d\.\d MB, 1 run, 7 sounds of 3 utterances as 16-bit WAV, 2 mis", said.out
    )
    page = out.read_text()
    assert page.count('<span class="picture">missing</span>') == 2
    assert data_of(page)["listenings"][0]["clips"][0]["sounds"][2] is None


def test_a_page_lies_in_its_run_or_here_for_several(run: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", str(run)]) == 0
    assert (run / "report.html").stat().st_size > 10_000
    assert str(run / "report.html") in capsys.readouterr().out
    assert cli.main(["report", str(run), str(run)]) == 0
    assert (tmp_path / "report.html").is_file()


def test_clips_bound_the_page(run: Path):
    page = page_of(run, n_clips=1)
    assert len(sounds_of(page)) == 4 and "The first 1 of 3 utterances." in page
    assert not sounds_of(page_of(run, n_clips=0))


def test_a_page_is_written_whole_or_not_at_all(run: Path, tmp_path: Path, monkeypatch):
    out = tmp_path / "x.html"
    out.write_text("before")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report([run], out, progress=False)
    assert out.read_text() == "before" and not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda folder: shutil.rmtree(folder), "no such folder; give the folder of a run"),
        (lambda folder: (folder / "settings.json").unlink(), "is no run: expected at least one of"),
        (lambda folder: None, "holds nothing to show"),
        (lambda folder: (folder / "table.json").write_text('{"rows": ['), "table.json is damaged"),
        (lambda folder: (folder / "table.json").write_bytes(b"\xff\xfe{"), "table.json is damaged"),
        (lambda folder: (folder / "table.json").write_text("[1]"), "where an object is expected"),
        (lambda folder: (folder / "table.json").write_text("[" * 10**5), "table.json is damaged"),
        (
            lambda folder: put(folder / "drift.json", {"codecs": [{"points": []}]}),
            "no value 'name'",
        ),
        (lambda folder: (folder / "history.jsonl").write_bytes(b"\xff\n"), "history.jsonl is dam"),
        (lambda folder: put(folder / "samples/index.json", {"columns": 3}), "columns: int where"),
    ],
)
def test_what_is_no_run_is_refused_by_name(prepare, said, tmp_path: Path, capsys):
    folder = tmp_path / "some run"
    put(folder / "settings.json", {"settings": {"steps": 3}})
    prepare(folder)
    assert cli.main(["report", str(folder), "--out", str(tmp_path / "x.html")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error:") and said in error and "some run" in error
    assert not (tmp_path / "x.html").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--clips", "-1"], "n_clips = -1: give 0 or more"),
        (["--audio", "mp3"], "audio 'mp3': known are wav, opus"),
        (["--audio", "opus", "--opus-kbps", "2"], "mono Opus has 6 to 256 kbps"),
        (["--out", "."], "is a folder"),
    ],
)
def test_wrong_options_are_named(options, said, run: Path, tmp_path: Path, capsys):
    assert cli.main(["report", str(run), "--out", str(tmp_path / "x.html"), *options]) == 2
    assert said in capsys.readouterr().err


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, child in inner:
        yield from places(child, (*path, key))


@pytest.mark.parametrize("name", ["table.json", "samples/index.json", "telephone/telephone.json"])
def test_any_wrong_value_is_read_or_refused(name: str, run: Path):
    good = json.loads((run / name).read_text())
    tried = 0
    for place in list(places(good))[1::3]:
        for wrong in (None, True, "x", -(10**400), [], {}, [[]], "\ud800\x00"):
            content = copy.deepcopy(good)
            at = content
            for key in place[:-1]:
                at = at[key]
            at[place[-1]] = wrong
            put(run / name, content)
            try:
                read_run(run)
            except ValueError as error:
                assert "is damaged" in str(error) and Path(name).name in str(error)
            tried += 1
    assert tried > 50
