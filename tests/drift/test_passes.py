"""Repeated encoding: identities, delays, levels, resume, and bad clips."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from makers.audio import RATE, make_tone
from makers.codecs import BlockCodec, make_dac
from makers.effects import Effect, late
from tokgen.audio.files import write_audio
from tokgen.corpus.listed import open_corpus
from tokgen.drift.clips import DriftClips
from tokgen.drift.passes import drift_of, run_drift
from tokgen.drift.summary import DriftSummary, summarise
from tokgen.metrics.delay import measure_delay

PESQ_CEILING = 4.64


@pytest.fixture
def clips(tiny_corpus: Path) -> DriftClips:
    return DriftClips(open_corpus(tiny_corpus, split="test"), seconds=1.5)


def test_an_identity_codec_stays_at_the_ceiling():
    drift = drift_of(Effect(lambda w: w), make_tone(1.5, 3), 4)
    assert drift.values["pesq"] == pytest.approx([PESQ_CEILING] * 4, abs=0.01)
    assert drift.values["log_mel"].tolist() == drift.values["level"].tolist() == [0.0] * 4
    assert (drift.values["si_sdr"] == math.inf).all()
    assert drift.codes is None and "match_first" not in drift.values


def test_an_idempotent_codec_shows_no_drift():
    drift = drift_of(BlockCodec(2.0, 0.5), make_tone(1.5, 3), 5, match_level=False)
    values = drift.values
    assert values["pesq"][0] < PESQ_CEILING
    for metric in ("pesq", "si_sdr", "si_sdr_aligned", "log_mel", "level"):
        assert values[metric] == pytest.approx([values[metric][0]] * 5, abs=1e-6)
    assert np.isnan(values["match_previous"][0]).all()
    assert (values["match_previous"][1:] == 1).all() and (values["match_first"] == 1).all()
    assert (drift.codes == drift.codes[0]).all()


def test_a_clip_too_short_for_mel_spectra_says_so():
    drift = drift_of(Effect(lambda w: w), make_tone(0.05, 3), 1)
    assert np.isnan(drift.values["log_mel"]).all()
    reasons = {metric: reason for _, metric, reason in drift.failures}
    assert "not longer than 1024 samples" in reasons["log_mel"]


def test_drift_lowers_the_match(tiny_codec):
    values = drift_of(tiny_codec, make_tone(1.5, 3), 3).values
    assert values["match_previous"].shape == (3, 4)
    assert (values["match_first"][0] == 1).all()
    assert values["match_previous"][1].mean() < 1
    np.testing.assert_array_equal(values["match_first"][1], values["match_previous"][1])


def test_passes_are_repeated_roundtrips(tiny_codec):
    audio = make_tone(1.2, 1)
    drift = drift_of(tiny_codec, audio, 3, match_level=False)
    heard = audio[None]
    for n in range(3):
        assert torch.equal(torch.from_numpy(drift.codes[n]).long(), tiny_codec.encode(heard)[0])
        heard = tiny_codec.roundtrip(heard)


@pytest.mark.parametrize("n", [8, -8, 37])
def test_a_delay_is_measured_once_and_taken_out(n):
    """A codec with odd strides loses samples in each pass and pads the end (DAC: 8 samples)."""
    codec = Effect(lambda w: late(w, n))
    delay = measure_delay(codec.roundtrip, RATE)
    assert delay.samples == n and delay.correlation > 0.9
    values = drift_of(codec, make_tone(1.5, 2), 4, delay=delay.samples).values
    assert (values["si_sdr"] < 10).all()
    assert (values["si_sdr_aligned"] > 100).all()


@pytest.mark.parametrize("gain", [2.0, 0.5])
def test_levels_change_and_nothing_clips(gain):
    audio = 0.9 * make_tone(1.5, 2) / make_tone(1.5, 2).abs().max()
    step = 20 * math.log10(gain)
    free = drift_of(Effect(lambda w: gain * w), audio, 5, match_level=False).values
    assert free["level"] == pytest.approx([step * n for n in range(1, 6)], abs=1e-4)
    assert (free["si_sdr"] > 100).all()  # up to 28 times full scale without clipping
    held = drift_of(Effect(lambda w: gain * w), audio, 5).values
    assert held["level"] == pytest.approx([step] * 5, abs=1e-4)
    assert held["log_mel"] == pytest.approx([0.0] * 5, abs=1e-4)


def test_a_pass_encodes_and_decodes_once(clips):
    seen, loads = [], []
    codec = BlockCodec()
    encode, decode, load = codec._encode, codec._decode, clips.load
    codec._encode = lambda w, n: (seen.append(("encode", w.shape[-1])), encode(w, n))[1]
    codec._decode = lambda c, s: (seen.append(("decode", c.shape[-1] * 4)), decode(c, s))[1]
    clips.load = lambda i, rate: (loads.append(rate), load(i, rate))[1]
    audio = clips.load(0, RATE)
    drift_of(codec, audio, 3)
    n = audio.shape[-1]
    assert seen == [("encode", n), ("decode", -(-n // 4) * 4)] * 3
    assert loads == [RATE]


@pytest.mark.parametrize("name", ["tiny", "dac-odd"])
def test_lengths_hold_over_passes(name, tiny_codec):
    """Every pass has the same number of frames, for any length and for odd strides."""
    codec = tiny_codec if name == "tiny" else make_dac(name)
    drift = drift_of(codec, make_tone(1.5, 0)[:, :8123], 4)
    assert drift.codes.shape == (4, codec.spec.n_codebooks, codec.spec.n_frames(8123))
    assert np.isfinite(drift.values["si_sdr"]).all()


def test_silence_is_counted_as_failed(clips, tmp_path):
    run = run_drift(Effect(torch.zeros_like), clips, out=tmp_path, passes=2, progress=False)
    summary = summarise(run)
    for metric in ("pesq", "si_sdr", "level"):
        estimate = summary.at(metric, 2)
        assert math.isnan(estimate.mean) and (estimate.n, estimate.n_failed) == (0, 2)
    assert summary.at("log_mel", 2).n == 2
    json.dumps(summary.as_dict(), allow_nan=False)
    assert len(summary.failures) == 2 * 2 * 4  # clips, passes and metrics, without log_mel
    (clip_id, *_) = run.ids
    assert f"{clip_id}, pesq, passes 1 to 2: silent" in summary.failure_lines()
    again = run_drift(Effect(torch.zeros_like), clips, out=tmp_path, passes=2, progress=False)
    assert summarise(again).failures == summary.failures
    assert DriftSummary.from_dict(summary.as_dict()).failures == summary.failures
    silent = drift_of(BlockCodec(), torch.zeros(1, 4000), 2)
    assert np.isnan(silent.values["pesq"]).all() and (silent.values["match_first"] == 1).all()


def test_a_run_resumes(clips, tmp_path):
    codec = Effect(lambda w: 0.9 * late(w, 3))

    def measure(passes=3, **settings):
        codec.calls = 0
        found = run_drift(codec, clips, out=tmp_path, passes=passes, progress=False, **settings)
        return found, codec.calls - 1  # one call measures the delay

    whole, calls = measure()
    assert calls == 3 * len(clips) == 6
    again, calls = measure()
    assert calls == 0
    (folder,) = (tmp_path / "clips").iterdir()
    stores = sorted(folder.iterdir())
    stores[0].unlink()
    stores[1].write_bytes(b"cut off")
    healed, calls = measure()
    assert calls == 6
    for one in (again, healed):
        for a, b in zip(whole.clips, one.clips, strict=True):
            assert all(np.array_equal(a.values[k], b.values[k], equal_nan=True) for k in a.values)
    assert measure(passes=2)[1] == 4
    for other in ({"match_level": False}, {"shift": 7}, {"shift": "random"}, {"scored": [3]}):
        assert measure(**other)[1] == 6 and measure(**other)[1] == 0
    assert measure(shift="random", seed=1)[1] == 6
    assert measure(shift=7, seed=1)[1] == 0  # a fixed shift has no seed


def test_bad_clips_are_left_out(tiny_corpus, tmp_path):
    import shutil

    folder = tmp_path / "corpus"
    shutil.copytree(tiny_corpus, folder)
    (folder / "g.wav").write_bytes(b"RIFF nothing")
    clips = DriftClips(open_corpus(folder, split="test"))
    run = run_drift(Effect(lambda w: w), clips, out=tmp_path / "out", passes=1, progress=False)
    assert len(run.clips) == 1 and "g.wav" in run.rejections[0].source
    (folder / "h.wav").write_bytes(b"")
    clips = DriftClips(open_corpus(folder, split="test"))
    with pytest.raises(ValueError, match="no usable clip"):
        run_drift(Effect(lambda w: w), clips, out=tmp_path / "out", passes=1, progress=False)


def test_silent_and_missing_clips_are_reported(tiny_corpus, tmp_path):
    folder = tmp_path / "corpus"
    tone = make_tone(1.0, 0)
    write_audio(folder / "late.wav", torch.cat([torch.zeros(1, RATE), tone], dim=1), RATE)
    write_audio(folder / "soon.wav", tone, RATE)
    rows = "late.wav,a\nsoon.wav,b\nmissing.wav,c\n"
    (folder / "metadata.csv").write_text("file_name,text\n" + rows)
    clips = DriftClips(open_corpus(folder), seconds=0.5)
    run = run_drift(Effect(lambda w: w), clips, out=tmp_path / "out", passes=1, progress=False)
    assert len(run.clips) == 1
    reasons = {Path(r.source).name: r.reason for r in run.rejections}
    assert "first 0.5 s are silent" in reasons["late.wav"]
    assert any("missing.wav" in r.source + r.reason for r in run.rejections)
    whole = run_drift(
        Effect(lambda w: w), DriftClips(clips.corpus, None), out=tmp_path, passes=1, progress=False
    )
    assert len(whole.clips) == 2


def test_unreadable_clips_do_not_count(tmp_path):
    folder = tmp_path / "corpus"
    (folder / "a.wav").parent.mkdir()
    (folder / "a.wav").write_bytes(b"RIFF nothing")
    write_audio(folder / "b.wav", torch.zeros(1, RATE), RATE)
    for seed, name in enumerate("cde"):
        write_audio(folder / f"{name}.wav", make_tone(0.4, seed), RATE)
    clips = DriftClips(open_corpus(folder), n_clips=2)
    assert clips.ids() == ["c", "d"]
    run = run_drift(Effect(lambda w: w), clips, out=tmp_path / "out", passes=1, progress=False)
    assert run.ids == ["c", "d"]
    assert [Path(r.source).name for r in run.rejections] == ["a.wav", "b.wav"]
    whole = DriftClips(open_corpus(folder).select(ids=["c", "d"]))
    assert clips.fingerprint == whole.fingerprint


def test_scored_passes_are_those_of_a_whole_run(clips, tiny_codec, tmp_path):
    """Only the named passes have scores of audio; their values and all codes stay the same."""
    common = {"out": tmp_path, "passes": 4, "progress": False}
    whole = run_drift(tiny_codec, clips, **common)
    some = run_drift(tiny_codec, clips, scored=[4, 1], **common)
    assert some.scored_passes == [1, 4] and whole.scored_passes == [1, 2, 3, 4]
    for n in (1, 4):
        assert some.at("pesq", n).tolist() == whole.at("pesq", n).tolist()
    for n in (2, 3, 4):
        expected = [clip.values["match_previous"][n - 1].mean() for clip in whole.clips]
        assert some.at("match_previous", n).tolist() == expected
    with pytest.raises(KeyError, match="tiny: no pesq after 2 passes"):
        some.at("pesq", 2)
    with pytest.raises(KeyError, match="no nothing after 1 passes"):
        some.at("nothing", 1)
    points = {(p.metric, p.passes) for p in summarise(some).points}
    assert ("si_sdr", 2) not in points and {("si_sdr", 4), ("match_first", 2)} <= points
    assert summarise(some).failures == []
    for wrong in ([1, 2], [0, 4], [4, 5], []):
        with pytest.raises(ValueError, match="must be passes from 1 to 4, and 4 among them"):
            run_drift(tiny_codec, clips, scored=wrong, **common)
