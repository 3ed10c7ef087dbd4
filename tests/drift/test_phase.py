"""Match under small shifts, and its correlation with quality after many passes."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from makers.codecs import BlockCodec, make_variable
from tokgen.corpus.listed import open_corpus
from tokgen.drift.clips import DriftClips
from tokgen.drift.compare import measure_drift
from tokgen.drift.phase import Correlation, PhaseSummary, phase_sensitivity, shift_grid


class Constant(BlockCodec):
    """Returns the same codes for every input."""

    def encode_latents(self, waveform: Tensor) -> Tensor:
        return super().encode_latents(waveform) * 0 + 1


@pytest.fixture
def clips(tiny_corpus: Path) -> DriftClips:
    return DriftClips(open_corpus(tiny_corpus, split="test"), seconds=1.0)


def test_shift_grid():
    assert shift_grid(16000) == [4 * i for i in range(-8, 9) if i]
    assert shift_grid(44100)[-4:] == [55, 66, 77, 88]
    assert shift_grid(2000) == [-4, -3, -2, -1, 1, 2, 3, 4]  # shifts of half a sample are rounded


def test_constant_codes_match_fully(clips, tmp_path):
    found = phase_sensitivity(Constant(name="constant"), clips, out=tmp_path, progress=False)
    assert found.mean_match.mean == 1 and all(e.mean == 1 for e in found.match)
    assert found.mean_match.n == 2 and found.shifts_ms[0] == -2.0


def test_match_equals_that_of_shifted_excerpts(clips, tiny_codec, tmp_path):
    found = phase_sensitivity(tiny_codec, clips, out=tmp_path, progress=False)
    margin, shares = 32, []
    for i in range(2):
        audio = clips.load(i, 16000)
        n = audio.shape[-1] - 2 * margin
        still = tiny_codec.encode(audio[None, :, margin : margin + n])
        moved = tiny_codec.encode(audio[None, :, margin + 4 : margin + 4 + n])
        shares.append((still == moved).float().mean().item())
    at = found.shifts.index(4)
    assert found.match[at].mean == pytest.approx(np.mean(shares), abs=1e-6)
    assert 0 < found.match[at].mean < 1 and len(found.level_match) == 4


def test_failed_clips_are_counted(tiny_corpus, tiny_codec, tmp_path):
    shutil.copytree(tiny_corpus, tmp_path / "corpus")
    corpus = open_corpus(tmp_path / "corpus", split="test")
    Path(corpus.entries[1].source).write_bytes(b"RIFF nothing")
    clips = DriftClips(corpus, seconds=1.0)
    found = phase_sensitivity(tiny_codec, clips, out=tmp_path, progress=False)
    assert (found.mean_match.n, found.mean_match.n_failed) == (1, 1)
    assert all((e.n, e.n_failed) == (1, 1) for e in (*found.match, *found.level_match))
    stores = {p: p.stat().st_mtime_ns for p in (tmp_path / "clips").rglob("*.safetensors")}
    assert len(stores) == 1
    again = phase_sensitivity(tiny_codec, clips, out=tmp_path, progress=False)
    assert again.mean_match.mean == found.mean_match.mean
    assert {p: p.stat().st_mtime_ns for p in stores} == stores


def test_too_short_clips_are_refused(tiny_corpus, tiny_codec, tmp_path):
    clips = DriftClips(open_corpus(tiny_corpus, split="test"), seconds=0.02)
    with pytest.raises(ValueError, match="not longer than a frame and two shifts"):
        phase_sensitivity(tiny_codec, clips, out=tmp_path, progress=False)


def test_clips_out_of_reach_of_the_bitrate_fail_by_name(tiny_corpus, tiny_codec, tmp_path):
    corpus = open_corpus(tiny_corpus, split="train").select(ids=["a one", "b", "f"])
    codec = make_variable(None).with_rate(bitrate=0.31)
    found = phase_sensitivity(codec, DriftClips(corpus), out=tmp_path, progress=False)
    assert [clip for clip, _ in found.failures] == ["b", "f"]
    assert all("bitrate = 0.31 kbps" in reason for _, reason in found.failures)
    assert (found.mean_match.n, found.mean_match.n_failed) == (1, 2)
    content = json.loads(json.dumps(found.as_dict(), allow_nan=True))
    assert PhaseSummary.from_dict(content).failures == found.failures
    drift = measure_drift([tiny_codec, codec], corpus, tmp_path / "drift", passes=2, phase=True,
                          progress=False)  # fmt: skip
    assert ": b: bitrate = 0.31 kbps" in drift.table()


def test_correlation_of_few_codecs_is_unknown():
    assert "n = 2 codecs: too few" in str(Correlation([("a", 0, 1)] * 2, 25, math.nan, 0, 0))


def test_measure_drift_with_phase(clips, tiny_codec, tmp_path):
    codecs = [tiny_codec, BlockCodec(), BlockCodec(1.0, 1.0, name="other")]
    found = measure_drift(
        codecs, clips.corpus, tmp_path, passes=2, clip_seconds=1.0, phase=True, progress=False
    )
    assert found.correlation is not None and len(found.correlation.pairs) == 3
    content = json.loads((tmp_path / "phase.json").read_text())
    assert [c["name"] for c in content["codecs"]] == ["tiny", "block", "other"]
    assert content["correlation"]["passes"] == 2
    assert content["correlation"]["low"] is None  # three codecs have no interval
    assert (tmp_path / "phase.png").stat().st_size > 5000
    assert "n = 3 codecs" in found.table()
