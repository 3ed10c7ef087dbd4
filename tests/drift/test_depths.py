"""Drift of codecs of variable bitrate: live codes, depth over passes, names and files."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from makers.audio import make_tone
from makers.codecs import make_variable
from tokgen.audio.files import write_audio
from tokgen.codec.depth import mean_kbps
from tokgen.corpus.listed import Corpus, open_corpus
from tokgen.drift.clips import DriftClips
from tokgen.drift.compare import measure_drift
from tokgen.drift.depths import live_match, match_over_levels, name_of
from tokgen.drift.passes import drift_of, run_drift
from tokgen.drift.phase import phase_sensitivity
from tokgen.drift.summary import summarise
from tokgen.report.depth import read_depth
from tokgen.report.figures import drift_pictures
from tokgen.report.reader import read_run
from tokgen.report.views import drift_numbers
from tokgen.zoo.stft import StftCodec

SHORT = {"clip_seconds": 1.0, "clips": 2, "passes": 3, "samples": 0, "progress": False}


@pytest.fixture(scope="module")
def view() -> StftCodec:
    return make_variable(1.0)


@pytest.fixture
def corpus(tiny_corpus: Path) -> Corpus:
    return open_corpus(tiny_corpus, split="test")


def test_only_codes_that_are_live_on_both_sides_count() -> None:
    a = torch.tensor([[1, 2, 3, 4], [5, 0, 5, 5], [7, 0, 0, 0]])
    b = torch.tensor([[1, 2, 3, 9], [5, 5, 6, 0], [0, 0, 0, 0]])
    depth_a, depth_b = torch.tensor([3, 1, 2, 2]), torch.tensor([2, 2, 2, 1])
    match = live_match(a, b, depth_a, depth_b)
    assert match[:2].tolist() == [0.75, 0.5] and match[2].isnan()  # live in frames 4, 2 and 0
    depth = torch.stack([depth_a, depth_b]).numpy()
    rows = np.stack([np.full(3, np.nan), match.numpy()])
    for first in (False, True):
        total = match_over_levels(rows, depth, first)
        assert np.isnan(total[0]) and total[1] == 4 / 6
    full = torch.full((4,), 3)
    assert torch.equal(live_match(a, b, full, full), live_match(a, b, None, None))


def test_values_of_a_clip_are_those_of_its_codes(view: StftCodec) -> None:
    audio = make_tone(1.2, 1)
    drift = drift_of(view, audio, 3, match_level=False)
    assert drift.codes is not None and drift.depth is not None
    heard, depths = audio[None], []
    for n in range(3):
        encoded = view.encode_with_side(heard)
        assert encoded.depth is not None
        depths.append(encoded.depth[0])
        assert drift.codes[n].tolist() == encoded.codes[0].tolist()
        assert drift.depth[n].tolist() == depths[-1].tolist()
        heard = view.decode(encoded.codes, audio.shape[-1], encoded.side)
    values = drift.values
    assert values["kbps"].tolist() == [mean_kbps(depth, view.spec) for depth in depths]
    same = [(a == b).double().mean().item() for a, b in pairwise(depths)]
    assert values["depth_match_previous"][1:].tolist() == same and min(same) < 1
    assert values["depth_match_first"][0] == 1 and values["depth_match_first"][1] == same[0]
    assert drift.over_levels("match_first")[0] == 1
    both = np.minimum(drift.depth[0], drift.depth[1]) > np.arange(4)[:, None]
    share = (drift.codes[0] == drift.codes[1])[both].mean()
    assert drift.over_levels("match_previous")[1] == pytest.approx(share)


def test_moved_clips_have_a_bitrate_but_no_matches(view: StftCodec) -> None:
    values = drift_of(view, make_tone(1.0, 1), 2, places=[0, 37]).values
    assert set(values) >= {"kbps"} and not [name for name in values if "match" in name]


def test_results_of_another_level_are_not_taken(
    view: StftCodec, corpus: Corpus, tmp_path: Path
) -> None:
    clips = DriftClips(corpus, 1.0, 1)
    deeper = view.with_rate(level=2.0)
    first, other, again = (
        run_drift(codec, clips, out=tmp_path, passes=2, n_samples=0, progress=False)
        for codec in (view, deeper, view)
    )
    assert other.bitrate > first.bitrate == again.bitrate
    assert again.clips[0].depth is not None and first.clips[0].depth is not None
    assert np.array_equal(again.clips[0].depth, first.clips[0].depth)
    assert first.bitrate == pytest.approx(1000 * first.clips[0].values["kbps"][0])
    assert first.at("depth_match_previous", 2) == first.clips[0].values["depth_match_previous"][1]


def test_the_name_has_the_rate(tmp_path: Path) -> None:
    codec = make_variable(None)
    assert name_of(codec) == "stft-variable"
    assert name_of(codec.with_rate(level=1.5)) == "stft-variable (level 1.5)"
    assert name_of(codec.with_rate(bitrate=0.8)) == "stft-variable:0.8"
    codec.spec = type(codec.spec)(**codec.spec.as_dict() | {"name": "stft-variable:0.8"})
    assert name_of(codec.with_rate(bitrate=0.8)) == "stft-variable:0.8"


def test_files_and_table_have_depth_where_a_codec_has_it(
    view: StftCodec, tiny_codec: StftCodec, corpus: Corpus, tmp_path: Path
) -> None:
    codecs = [tiny_codec, view, view.with_rate(bitrate=0.8)]
    found = measure_drift(codecs, corpus, tmp_path / "a", phase=True, stable=True, **SHORT)
    names = ["tiny", "stft-variable (level 1)", "stft-variable:0.8", "tiny (stable)"]
    assert [d.name for d in found.drifts] == names  # views have no stable decoding
    assert [p.name for p in found.phases] == names[:3]
    assert all(0 < p.mean_match.mean < 1 for p in found.phases)
    content = json.loads((tmp_path / "a" / "drift.json").read_text())
    for codec in content["codecs"]:
        metrics = {p["metric"] for p in codec["points"]}
        assert ({"depth_match_previous", "depth_match_first", "kbps"} <= metrics) == (
            "variable" in codec["name"]
        )
        assert set(content["backends"]) >= metrics
    at = found.drifts[2].at("kbps", 1)
    assert 0.75 < at.mean <= 0.8 and found.drifts[2].bitrate == pytest.approx(1000 * at.mean)
    with (tmp_path / "a" / "drift.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["metric"] == "depth_match_previous"]
    assert {r["pass"] for r in rows} == {"2", "3"} and {r["level"] for r in rows} == {""}
    heading, *lines = found.table().splitlines()
    assert "depth 2-3" in heading and "kbps @ 3" in heading
    assert next(line for line in lines if line.startswith("tiny ")).rstrip().endswith("–")
    page = read_run(tmp_path / "a").drift
    assert page is not None and len(drift_pictures(page, "x")) == 6
    assert not [name for name in drift_numbers(page).headings if "depth" in name]
    numbers = drift_numbers(page, depth=True)
    assert "depth match with the pass before" in numbers.headings
    assert [name for name, _ in numbers.groups] == names[1:3]
    plain = measure_drift(tiny_codec, corpus, tmp_path / "b", **SHORT)
    text = (tmp_path / "b" / "drift.json").read_text()
    assert "depth" not in text and "kbps" not in text and "depth" not in plain.table()


def test_saved_passes_have_their_depth(view: StftCodec, corpus: Corpus, tmp_path: Path) -> None:
    short = {**SHORT, "clips": 1, "samples": 1}
    measure_drift(view, corpus, tmp_path, **short)
    (folder,) = (tmp_path / "audio" / "stft-variable__level_1_").iterdir()
    first = read_depth(folder / "pass01.wav")
    (store,) = (tmp_path / "clips").iterdir()
    stored = load_file(next(store.iterdir()))["depth"]
    assert first is not None and first.depth == stored[0].tolist()
    assert (folder / "pass03.depth.json").is_file()
    measure_drift(make_variable(None), corpus, tmp_path, **short, overwrite=True)
    assert not list(tmp_path.rglob("*.depth.json"))


def test_levels_without_live_codes_are_left_out(corpus: Corpus, tmp_path: Path) -> None:
    codec = make_variable(0.05)  # one level in every frame
    clips = DriftClips(corpus, 1.0, 2)
    run = run_drift(codec, clips, out=tmp_path, passes=2, n_samples=0, progress=False)
    drift = summarise(run)
    assert drift.at("match_first", 1, 0).mean == 1 and drift.at("match_first", 1, 3).n == 0
    assert drift.at("match_first", 1).mean == 1 and drift.at("match_first", 1).n_failed == 0
    assert drift.at("codebook_use", 2).mean == drift.at("codebook_use", 2, 0).mean > 0
    total = drift.at("match_previous", 2)
    assert total == drift.at("match_previous", 2, 0)
    phase = phase_sensitivity(codec, clips, out=tmp_path, progress=False)
    assert phase.level_match[0].mean == pytest.approx(phase.mean_match.mean)
    assert np.isnan(phase.level_match[3].mean)


def test_a_clip_out_of_reach_of_the_bitrate_is_rejected(tmp_path: Path) -> None:
    codec = make_variable(None)
    spec, folder = codec.spec, tmp_path / "corpus"
    write_audio(folder / "long.wav", make_tone(1.0, 0), spec.sample_rate)
    short = make_tone(1.0, 1)[:, : 3 * spec.hop_length]
    write_audio(folder / "short.wav", short, spec.sample_rate)
    lowest = mean_kbps(torch.ones(3, dtype=torch.long), spec)  # of short.wav
    view = codec.with_rate(bitrate=0.99 * lowest)
    clips = DriftClips(open_corpus(folder), None)
    run = run_drift(view, clips, out=tmp_path / "out", passes=1, progress=False)
    assert [Path(id).stem for id in run.ids] == ["long"]
    (rejection,) = run.rejections
    assert "short" in rejection.source and "kbps: stft-variable reaches" in rejection.reason
