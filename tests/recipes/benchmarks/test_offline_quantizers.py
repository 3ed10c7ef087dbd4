"""The benchmark of offline quantizers: a run, numbers by hand, a kill, decoders, wrong flags."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import offline_quantizers as bench
import offline_quantizers_tables as tables
from bench_stable import read_clips, spread
from makers.codecs import make_stft_codec, save_codec
from makers.continuous import make_continuous
from offline_quantizers_fits import Cell, make_cells, peer_cells
from tokgen.codec.spec import CodecSpec
from tokgen.corpus.listed import open_corpus
from tokgen.metrics.codebook import perplexity
from tokgen.metrics.pesq import pesq_wb
from tokgen.quantizers.offline.base import OfflineQuantizer, share_left
from tokgen.report.page import write_report
from tokgen.zoo.lookup import load_codec

QUANTIZERS = ("kmeans", "kmeans:4", "pq", "qinco2:2")
QINCO = {"preset": "null", "n_blocks": 1, "embedding_dim": 8, "hidden_dim": 8, "preselect": 4}


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: Path) -> list[str]:
    zoo = tmp_path_factory.mktemp("zoo")
    make_continuous().save_pretrained(zoo / "tiny-continuous")
    peer = save_codec(make_stft_codec(n_codebooks=2, codebook_size=16), zoo / "peer")
    found = ["--codec", str(zoo / "tiny-continuous"), "--codebook_size", "16", "--peer", str(peer)]
    found += ["--corpora", f"[{tiny_corpus}]", "--corpus", str(tiny_corpus), "--split", "train"]
    found += ["--clips", "2", "--seconds", "1", "--metrics", "pesq", "si_sdr"]
    found += ["--kbps", "0.4", "0.6", "--training.steps", "2", "--training.batch_size", "32"]
    return found


def run(flags: list[str], runs: Path, *quantizers: str, more: tuple[str, ...] = ()) -> Path:
    settings = [f"qinco2.{key}={value}" for key, value in QINCO.items()]
    if "qinco2:2" in quantizers:
        more = ("--settings", *settings, *more)
    assert bench.main([*flags, "--runs", str(runs), "--quantizers", *quantizers, *more]) == 0
    return runs / "offline_quantizers"


@pytest.fixture(scope="module")
def whole(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(flags, tmp_path_factory.mktemp("whole"), *QUANTIZERS)


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    return {r["name"]: r["values"] for r in json.loads((folder / "table.json").read_text())["rows"]}


def test_quantizers_are_compared(whole: Path, tmp_path: Path) -> None:
    for name in ("table.csv", "table.md", "table.tex", "settings.json"):
        assert (whole / name).stat().st_size > 0
    assert all((whole / name).stat().st_size > 9000 for name in ("quality.png", "perplexity.png"))
    rows = rows_of(whole)
    labels = ["kmeans", "kmeans, beam 4", "pq", "qinco2, beam 2"]
    wanted = [f"{label}, {kbps} kbps" for label in labels for kbps in (0.4, 0.6)]
    assert list(rows) == [*wanted, "peer, 0.4 kbps"]  # which has 2 levels
    for name, row in rows.items():
        kbps = 0.6 if "0.6" in name else 0.4
        assert row["bitrate"]["mean"] == pytest.approx(kbps) and row["pesq"]["n"] == 2
        assert [f"perplexity_level_{k}" in row for k in (1, 2, 3, 4)] == [
            True, True, kbps == 0.6, False
        ]  # fmt: skip
        assert row["speed"]["mean"] > 0
        assert ("speed_ratio" in row) == (not name.startswith("kmeans, 0"))
        assert ("share_left" in row) == ("fit_seconds" in row) == (not name.startswith("peer"))
    fits = [rows[f"kmeans{beam}, {kbps} kbps"]["fit_seconds"]["mean"]
            for beam in ("", ", beam 4") for kbps in (0.4, 0.6)]  # fmt: skip
    assert len(set(fits)) == 1 and fits[0] > 0  # one fit for all
    assert len({p.name.rsplit("-", 1)[0] for p in (whole / "fits").iterdir()}) == 4
    table = json.loads((whole / "table.json").read_text())
    pairs = {(d["row"], d["than"]) for d in table["differences"]}
    assert pairs == {(f"{label}, 0.4 kbps", "peer, 0.4 kbps") for label in labels} | {
        (f"kmeans, beam 4, {kbps} kbps", f"kmeans, {kbps} kbps") for kbps in (0.4, 0.6)
    }
    assert "peer has no constant bitrate of 0.6 kbps" in table["notes"]
    assert write_report([whole], tmp_path / "page.html") is not None
    assert "kmeans, beam 4, 0.6 kbps" in (tmp_path / "page.html").read_text()


def test_a_row_has_the_numbers_of_its_codes(whole: Path, tiny_corpus: Path) -> None:
    (fit,) = (whole / "fits").glob("kmeans-3-*")  # of 3 levels; the row has 2
    codec = load_codec(fit / "codec").with_beam(4)
    corpus = spread(open_corpus(tiny_corpus, split="train").select(min_seconds=1.0), 2)
    clips = list(read_clips(codec, corpus, 1.0, ()))
    codes = [codec.encode(clip.waveform, 2) for clip in clips]
    latents = [make_continuous().encode(clip.waveform)[0].T for clip in clips]
    decoded = torch.cat([codec.model.quantizer.decode(c[0].T) for c in codes])
    row = rows_of(whole)["kmeans, beam 4, 0.4 kbps"]
    assert row["share_left"]["mean"] == pytest.approx(share_left(torch.cat(latents), decoded))
    heard = [codec.decode(c, x.waveform.shape[-1]) for c, x in zip(codes, clips, strict=True)]
    scores = [pesq_wb(x.waveform[0], y[0], 16000) for x, y in zip(clips, heard, strict=True)]
    assert row["pesq"]["mean"] == pytest.approx(np.mean(scores), rel=1e-5)
    found = perplexity([c[0] for c in codes], 16)
    each = [row[f"perplexity_level_{k}"]["mean"] for k in (1, 2)]
    assert each == pytest.approx(found.tolist())
    assert row["perplexity"]["mean"] == pytest.approx(float(found.mean()))


def test_a_killed_run_continues_without_another_fit(
    flags: list[str], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score, left = bench.Scorer.score, [4]
    flags = [*flags, "--kbps", "0.4"]

    def killed(*args: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return score(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(bench.Scorer, "score", killed)
        run(flags, tmp_path, "kmeans", "kmeans:4")
    assert len(list((tmp_path / "offline_quantizers/fits").iterdir())) == 1
    counted = []
    with monkeypatch.context() as patch:
        patch.setattr(OfflineQuantizer, "fit", None)  # must not be called
        patch.setattr(bench.Scorer, "score", lambda *args: counted.append(1) or score(*args))
        found = rows_of(run(flags, tmp_path, "kmeans", "kmeans:4"))
    assert len(counted) == 2 * 3 - 3  # the clips of three rows, less those before the kill
    for name, row in found.items():
        for key in set(row) - {"fit_seconds", "speed", "speed_ratio"}:
            assert row[key] == rows_of(whole)[name][key], (name, key)


def test_decoders_are_trained_on_the_codes_of_their_row(flags: list[str], tmp_path: Path) -> None:
    more = ("--finetune_decoder", "1", "--finetune.batch_size", "2", "--finetune.seconds", "0.4")
    more += ("--finetune.adversarial_seconds", "0.2", "--finetune.validation_min_seconds", "0")
    more += ("--finetune_kbps", "0.4", "--finetune_quantizers", "kmeans:4")
    more += ("--finetune.discriminator", "{periods: [], windows: [128], channels: 2}")
    folder = run(flags, tmp_path, "kmeans", "kmeans:4", more=more)
    (fit,) = (folder / "fits").iterdir()
    (decoder,) = (fit / "decoders").iterdir()
    settings = json.loads((decoder / "settings.json").read_text())["settings"]
    assert settings["model"] == {"codec": f"{fit / 'codec'}:0.4", "beam": 4}  # 2 of 3 levels
    rows = rows_of(folder)
    assert sum("trained decoder" in name for name in rows) == 1 and len(rows) == 6
    plain, trained = (rows[f"kmeans, beam 4{x}, 0.4 kbps"] for x in ("", ", trained decoder"))
    assert plain["share_left"] == trained["share_left"]
    assert plain["si_sdr"] != trained["si_sdr"] and "speed_ratio" in plain
    table = json.loads((folder / "table.json").read_text())
    pairs = {(d["row"], d["than"], d["metric"]) for d in table["differences"]}
    name = "kmeans, beam 4, trained decoder, 0.4 kbps"
    assert {(name, "kmeans, beam 4, 0.4 kbps", m) for m in ("pesq", "si_sdr")} <= pairs
    assert (name, "kmeans, beam 4, 0.4 kbps", "share_left") not in pairs
    weights = decoder / "codec/autoencoder/model.safetensors"
    before = weights.stat().st_mtime_ns
    run(flags, tmp_path, "kmeans", "kmeans:4", more=more)
    assert weights.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--kbps", "0.5"], r"bitrate = 0\.5: a level of 16 entries is 0\.2 kbps"),
        (["--quantizers", "vq"], "quantizer 'vq': known are kmeans, "),
        (["--quantizers", "pq:4"], "--quantizers pq:4: pq has no beam search"),
        (["--quantizers", "kmeans:0"], "kmeans:0: the beam must be 1 to"),
        (["--quantizers", "kmeans", "kmeans"], "kmeans kmeans: give each once"),
        (["--quantizers", "pq", "--kbps", "2"], "frames of 8 numbers have at most 8 slices"),
        (["--settings", "kmeans.rows"], "must be QUANTIZER.NAME=VALUE"),
        (["--settings", "kmeans.rows=3"], "rows"),
        (["--settings", "kmeans.n_codebooks=3"], "must leave levels and codebook_size"),
        (["--settings", "fsq.steps=3"], "--settings of fsq: not one of --quantizers"),
        (["--metrics", "speaker"], "--metrics speaker: known here are pesq si_sdr mos cer"),
        (["--finetune_kbps", "4"], "--finetune_kbps 4: must be one of --kbps"),
        (["--finetune_quantizers", "pq"], "--finetune_quantizers pq: must be one of --quantizers"),
        (["--bitrate", "4"], "--bitrate: give --quantizers, --settings and --kbps"),
        (["--beam=4"], "--beam=4: give --quantizers"),
        (["--stpes", "4"], "unrecognized arguments: --stpes"),
        (["--corpus", "./nowhere"], "no folder or file ./nowhere"),
        (["--peer", "nowhere"], "no codec 'nowhere'"),
    ],
)
def test_wrong_flags_are_refused(
    flags: list[str], tmp_path: Path, change: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        bench.main([*flags, "--runs", str(tmp_path), "--quantizers", "kmeans", *change])


def test_a_peer_must_fit(flags: list[str], tmp_path: Path) -> None:
    other = save_codec(make_stft_codec(sample_rate=8000, hop_length=160), tmp_path / "other")
    with pytest.raises(SystemExit, match="it has 8000 Hz, but tiny-continuous has 16000"):
        bench.main([*flags, "--peer", str(other), "--runs", str(tmp_path)])


def test_fits_are_shared_if_codes_are_nested() -> None:
    spec = make_continuous().spec
    cells = make_cells(["kmeans:4", "rfsq", "pq"], [0.6, 0.2], {"pq": {}}, spec, 16)
    assert [(c.label, c.kbps, c.levels, c.fit_levels) for c in cells] == [
        ("kmeans, beam 4", 0.2, 1, 3),
        ("kmeans, beam 4", 0.6, 3, 3),
        ("rfsq", 0.2, 1, 3),
        ("rfsq", 0.6, 3, 3),
        ("pq", 0.2, 1, 1),
        ("pq", 0.6, 3, 3),
    ]
    peer = make_stft_codec(codebook_size=16).spec
    assert [(c.kbps, c.levels) for c in peer_cells(peer, [0.3, 0.8, 0.2, 1.0])] == [
        (0.2, 1),
        (0.8, 4),
    ]


def measured(cell: Cell, cer: tuple[int, int], **more: Any) -> tables.Measured:
    spec = CodecSpec("x", 16000, 320, 2, 16, "tokgen", None, "", "")
    codes = [np.arange(8).reshape(2, 4).astype(np.uint16), np.zeros((2, 4), np.uint16)]
    scores = [
        {"id": "a", "mos": 3.0, "edits": cer[0], "chars": 10},
        {"id": "b", "mos": math.nan, "edits": cer[1], "chars": 30, "failures": {"mos": "silent"}},
    ]
    return tables.Measured(cell, spec, codes, [0.5, 1.0], [0.1, 0.2], scores, [1.0, 3.0], **more)


def test_tables_pool_over_clips_and_pair_rows() -> None:
    metrics = tables.columns(["mos", "cer"], {"mos": "one", "cer": "two"})
    greedy = measured(Cell("kmeans", 0.4, 2), (2, 2))
    searched = measured(Cell("kmeans", 0.4, 2, beam=4), (1, 1), trained=True)
    other = measured(Cell("pq", 0.4, 2), (0, 0))
    rows = [greedy, searched, other]
    table = tables.make_table(rows, metrics, [2.0, 4.0], [10.0, 10.0], ["2 clips"])
    values = table.rows[0].values
    assert values["share_left"].mean == pytest.approx(0.2) and values["cer"].mean == 0.1
    assert (values["mos"].n, values["mos"].n_failed) == (1, 1)
    assert [values[m].mean for m in ("speed", "speed_ratio")] == pytest.approx([4, 0.2])
    assert math.isnan(values["fit_seconds"].mean) and values["bitrate"].mean == pytest.approx(0.4)
    assert [f.row for f in table.failures] == [row.name for row in rows]
    assert not table.differences  # other levels of training, other quantizers
    both = [greedy, tables.replace(searched, trained=False)]
    (share, mos, cer) = tables.make_table(both, metrics, [2, 4], [10, 10], []).differences
    assert (share.metric, share.estimate.mean, mos.estimate.n) == ("share_left", 0.0, 1)
    assert (cer.metric, cer.estimate.mean) == ("cer", pytest.approx(-0.05))
    assert cer.than == "kmeans, 0.4 kbps"
    for row in both:
        row.scores[1]["not_applicable"] = {"cer": bench.NO_CER}
    table = tables.make_table(both, metrics, [2, 4], [10, 10], [])
    assert [row.values["cer"].mean for row in table.rows] == [0.2, 0.1]
    assert table.rows[0].values["cer"].n_failed == 0
    assert any("CER does not apply to 1 of 2 clips" in note for note in table.notes)
    assert table.differences[-1].estimate.mean == pytest.approx(-0.1)
