"""Rate against distortion: points, the rule of energy, tables, resuming, and the picture."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import rate_distortion as bench
import rate_distortion_tables as tables
from makers.audio import RATE, make_tone
from makers.codecs import make_variable
from tokgen.audio.files import write_audio
from tokgen.codec.depth import depth_bits
from tokgen.corpus.listed import open_corpus
from tokgen.report.page import write_report

KBPS = (0.6, 0.9)


@pytest.fixture(scope="module")
def vbr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo") / "vbr"
    make_variable(None).save_pretrained(folder)
    return folder


@pytest.fixture
def flags(vbr: Path, tiny_codec_folder: Path, tiny_corpus: Path, tmp_path: Path) -> list[str]:
    found = ["--codec", str(vbr), "--constant", str(tiny_codec_folder), "--seconds", "1"]
    found += ["--corpus", str(tiny_corpus), "--split", "train", "--clips", "2", "--mos", "none"]
    return [*found, "--kbps", *map(str, KBPS), "--bitrates", "0.5", "--runs", str(tmp_path)]


def test_systems_are_measured_and_compared(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert bench.main(flags) == 0
    run = tmp_path / "rate_distortion"
    said = capsys.readouterr().out
    assert "vbr, variable, 0.6 kbps" in said and "by energy" in said
    for name in ("table.csv", "table.md", "table.tex", "rate_distortion.png", "settings.json"):
        assert (run / name).is_file()
    table = json.loads((run / "table.json").read_text())
    rows = {row["name"]: row["values"] for row in table["rows"]}
    assert len(rows) == 2 * 4 and rows["tiny, constant, 0.9 kbps"]["pesq"]["n"] == 2
    for kbps in KBPS:
        own = rows[f"vbr, variable, {kbps:g} kbps"]
        assert 0.93 * kbps < own["kbps"]["mean"] <= kbps and own["depth"]["mean"] > 0
        constant = rows[f"vbr, constant, {kbps:g} kbps"]
        assert constant["kbps"]["mean"] == pytest.approx(kbps) and constant["depth"]["mean"] == 0
        assert "saved" in constant and "saved" not in own
    pairs = {(d["row"], d["than"], d["metric"]) for d in table["differences"]}
    assert len(pairs) == 2 * 3 * 3 and {row for row, *_ in pairs} == {
        f"vbr, variable, {kbps:g} kbps" for kbps in KBPS
    }
    curves = json.loads((run / "curves.json").read_text())
    assert [p["asked"] for p in curves["vbr, variable"]] == [0.5, 0.6, 0.9]
    assert [p["levels"] for p in curves["tiny, constant"]] == [1, 2, 3, 4]
    scores = [p["mel"]["mean"] for p in curves["vbr, constant"]]
    assert scores[0] != scores[-1]
    assert write_report([run], tmp_path / "page.html") is not None
    assert "vbr, variable, 0.6 kbps" in (tmp_path / "page.html").read_text()


def test_a_run_continues_where_it_was(flags: list[str], tmp_path: Path) -> None:
    assert bench.main(flags) == 0
    run = tmp_path / "rate_distortion"
    content = (run / "table.json").read_text()
    for store in (run / "clips").iterdir():
        first, _ = store.read_text().splitlines()
        record = json.loads(first)
        for points in record["points"].values():
            for point in points:
                point["pesq"] = 9.0
        store.write_text(json.dumps(record) + "\n")
    assert bench.main(flags) == 0  # the first clip is not measured again
    other = json.loads((run / "table.json").read_text())
    assert all(row["values"]["pesq"]["mean"] > 5 for row in other["rows"])
    (run / "clips").rename(tmp_path / "old")
    assert bench.main(flags) == 0
    assert (run / "table.json").read_text() == content


def test_clips_of_equal_ids_are_told_apart(tmp_path: Path) -> None:
    """Another corpus in the same run, as `--corpus` allows, may have the ids of the first."""

    class Counted(bench.ClipBench):
        def measure(self, clip):
            return {"points": {}, "failures": [], "peak": clip.waveform.abs().max().item()}

    counted, peaks = Counted(make_variable(None), None), []
    for folder, gain in (("a", 1.0), ("b", 0.5), ("a", 1.0)):
        write_audio(tmp_path / folder / "0.wav", gain * make_tone(0.5, 1), RATE)
        corpus = open_corpus(tmp_path / folder)
        peaks.append(bench.collect(counted, corpus, 0.0, tmp_path / "clips")["0"]["peak"])
    assert peaks[0] == peaks[2] == pytest.approx(2 * peaks[1], rel=0.01)
    [store] = (tmp_path / "clips").iterdir()
    assert len(store.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--codec", "tiny"], "must be a codec of variable bitrate"),
        (["--kbps", "3"], r"--kbps 3: vbr reaches more than 0\.29.* and at most 1\.18"),
        (["--bitrates", "0.2"], "--bitrates 0.2: vbr reaches more than"),
    ],
)
def test_wrong_flags_are_refused(
    flags: list[str], tiny_codec_folder: Path, tmp_path: Path, change: list[str], message: str
) -> None:
    change = [str(tiny_codec_folder) if x == "tiny" else x for x in change]
    with pytest.raises(SystemExit, match=message):
        bench.main([*flags, *change])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit, match="not a run's folder"):
        bench.main([*flags, "--name", "mine"])
    for content in ('{"settings": {}}', "[1]", "{"):
        (tmp_path / "mine" / "settings.json").write_text(content)
        with pytest.raises(SystemExit, match="another recipe: choose another --name"):
            bench.main([*flags, "--name", "mine"])


def test_default_rates_are_those_in_reach() -> None:
    spec = make_variable(None).spec
    one = spec.bitrate / 4000
    with pytest.raises(ValueError, match="choose some of these"):
        bench.choose_rates(spec, None, None)
    kbps, bitrates = bench.choose_rates(spec, [0.8], None)
    assert kbps == [0.8] and bitrates == pytest.approx(sorted([0.8, 2 * one, 3 * one, 4 * one]))


def test_points_count_the_depth_and_keep_the_codes() -> None:
    codec = make_variable(None)
    spec, audio = codec.spec, make_tone(1.0, 3)[None]
    one = bench.ClipBench(codec, None, [0.7])
    encoded = codec.encode_with_importance(audio)
    ((point, found),) = one.at_bitrates(encoded)
    assert found is not None
    direct = codec.encode_with_side(audio, bitrate=0.7)
    assert torch.equal(found.codes, direct.codes)
    depth = direct.side["depth"][0].long()
    bits = float(depth.sum()) * math.log2(spec.codebook_size)
    assert point["kbps"] == pytest.approx((bits + depth_bits(depth, 4)) / 1000)
    assert point["depth"] == pytest.approx(depth_bits(depth, 4) / 1000)
    levels = list(one.at_levels(encoded))
    assert [p["kbps"] for p, _ in levels] == pytest.approx(
        [k * spec.bitrate / 4000 for k in (1, 2, 3, 4)]
    )
    for k, (_, level) in enumerate(levels, 1):
        assert torch.equal(level.codes, codec.encode(audio, k)) and not level.side


def test_a_bitrate_out_of_reach_has_no_point() -> None:
    codec = make_variable(None)
    one = bench.ClipBench(codec, None, [0.25])
    record = one.measure(bench.Clip("x", make_tone(1.0, 3)[None], None))
    assert math.isnan(record["points"]["variable"][0]["kbps"])
    assert [f[0] for f in record["failures"]] == ["variable at 0.25 kbps", "energy at 0.25 kbps"]
    assert "reaches" in record["failures"][0][2]


def test_the_rule_of_energy_is_in_proportion_to_decibels() -> None:
    spec = make_variable(None).spec
    gains = torch.tensor([-20.0, -30.0, -40.0, -120.0]).repeat_interleave(10 * spec.hop_length)
    audio = (10 ** (gains / 20))[None, None]
    found = bench.energy_importance(audio, spec)
    assert found.shape == (1, 40)
    steady = found[0, 5::10]
    assert steady.tolist() == pytest.approx([1, 50 / 60, 40 / 60, bench.LEAST], abs=1e-4)
    louder = bench.energy_importance(3 * audio, spec)
    torch.testing.assert_close(louder[0, :30], found[0, :30], atol=1e-4, rtol=0)
    flat = bench.energy_importance(torch.zeros(1, 1, 999), spec)
    assert flat.shape == (1, 4) and (flat > 0).all()


def record(pesq: list[float], ours: float, kbps: float = 1.9) -> tables.Record:
    constant = [{"levels": k, "kbps": float(k), "pesq": q} for k, q in enumerate(pesq, 1)]
    variable = [{"asked": 2.0, "kbps": kbps, "pesq": ours}]
    points = {"variable": variable, "constant": constant}
    return {"id": "x", "quiet": 0.0, "points": points, "failures": []}


def test_scores_between_levels_are_interpolated() -> None:
    points = record([1.0, 2.0, 4.0], 3.0)["points"]
    assert tables.at_kbps(points["constant"], 2.5, "pesq") == 3.0
    assert tables.at_kbps(points["constant"], 3.0, "pesq") == 4.0
    assert math.isnan(tables.at_kbps(points["constant"], 3.5, "pesq"))
    assert tables.at_kbps(points["variable"], 2.0, "pesq") == 3.0
    assert tables.at_kbps(points["variable"], 2.0, "kbps") == 1.9


def test_bits_are_saved_at_equal_pesq() -> None:
    clips = [record([1.0, 2.0, 4.0], 3.0), record([1.0, 2.0, 4.0], 2.0)]
    saved, said = tables.bits_saved(clips, "constant", 2.0)
    assert saved.mean == pytest.approx(100 * (2.5 - 1.9 + 2.0 - 1.9) / 4.5) and said == ""
    clips += [record([1.0, 2.0, 4.0], 4.5), record([1.5, 2.0, 4.0], 1.2)]
    saved, said = tables.bits_saved(clips, "constant", 2.0)
    assert saved.mean == pytest.approx(100 * (8.5 - 4 * 1.9) / 8.5)
    assert said == "1 of 4 clips exceed this PESQ at the lowest point; 1 of 4 clips do not reach it"
    saved, _ = tables.bits_saved([*clips, record([1.0, 2.0, 4.0], math.nan)], "constant", 2.0)
    assert (saved.n, saved.n_failed) == (4, 1)


def test_mos_without_its_package_is_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distillmos", None)
    assert bench.load_mos("distillmos") is None
    assert "without MOS: distillmos is not installed" in capsys.readouterr().out
    assert bench.load_mos("none") is None


def test_a_picture_of_the_depth(vbr: Path, tmp_path: Path) -> None:
    write_audio(tmp_path / "speech.wav", make_tone(1.0, 0), RATE)
    flags = ["--codec", str(vbr), "--picture", str(tmp_path / "speech.wav")]
    assert bench.main([*flags, "--levels", "0.5", "2", "--runs", str(tmp_path)]) == 0
    assert (tmp_path / "rate_distortion" / "speech.png").stat().st_size > 5000


def test_clips_are_grouped_by_their_pauses():
    spec = make_variable(None).spec
    tone, silence = make_tone(0.5, 0)[None], torch.zeros(1, 1, 8000)
    shares = [bench.quiet_share(torch.cat([tone, *[silence] * n], -1), spec) for n in (0, 1, 3)]
    assert shares[0] < 0.1 and shares[1:] == pytest.approx([0.5, 0.75], abs=0.04)
    records = []
    for i, share in enumerate((0.4, 0.0, 0.2, 0.1, 0.3, 0.5)):
        gain = 0.1 * (share >= 0.4)
        variable = [{"asked": 1.0, "kbps": 1.0, "pesq": 2.0 + gain}]
        constant = [{"kbps": 0.5, "pesq": 1.0}, {"kbps": 1.5, "pesq": 3.0}]
        points = {"variable": variable, "constant": constant}
        records.append({"id": str(i), "quiet": share, "points": points, "failures": []})
    (said,) = tables.by_pauses(records, [1.0])
    assert said.startswith(
        "PESQ of variable minus constant at 1 kbps: +0.000 [+0.000, +0.000] in 2"
    )
    assert said.endswith("+0.100 [+0.100, +0.100] in 2 clips with 40% to 50% of quiet frames")
    assert not list(tables.by_pauses(records[:2], [1.0]))
