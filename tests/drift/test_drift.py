"""Repeated encoding: identities, the traps of measuring it, resume, files."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from makers.audio import RATE, make_tone
from makers.codecs import BlockCodec, make_dac
from tokgen.audio.files import write_audio
from tokgen.codec.base import WaveformCodec
from tokgen.codec.spec import WaveformSpec
from tokgen.codec.windows import fit_length
from tokgen.corpus.listed import open_corpus
from tokgen.drift.compare import compare_drift
from tokgen.drift.passes import PER_CLIP, ClipDrift, DriftClips, DriftRun, drift_of, measure_drift
from tokgen.drift.summary import difference_lines, differences, summarise
from tokgen.metrics.codebook import token_match, use_with_interval
from tokgen.metrics.delay import Delay, align, delay_between, measure_delay, pink_noise

PESQ_CEILING = 4.64


class Effect(WaveformCodec):
    """A waveform codec that does `change` to audio [B, 1, N], and counts its calls."""

    def __init__(self, change, name: str = "effect") -> None:
        self.spec, self.change, self.calls = WaveformSpec(name, RATE, 8000.0, "test"), change, 0

    def roundtrip(self, waveform: Tensor) -> Tensor:
        self.calls += 1
        return fit_length(self.change(waveform), waveform.shape[-1])


def late(waveform: Tensor, n: int) -> Tensor:
    """Delay by n samples, or lose the first -n."""
    return torch.nn.functional.pad(waveform, (n, -n))


@pytest.fixture
def clips(tiny_corpus: Path) -> DriftClips:
    return DriftClips(open_corpus(tiny_corpus, split="test"), seconds=1.5)


# -- identities ----------------------------------------------------------------


def test_an_identity_codec_stays_at_the_ceiling():
    drift = drift_of(Effect(lambda w: w), make_tone(1.5, 3), 4)
    assert drift.values["pesq"] == pytest.approx([PESQ_CEILING] * 4, abs=0.01)
    assert drift.values["log_mel"].tolist() == drift.values["level"].tolist() == [0.0] * 4
    assert (drift.values["si_sdr"] == math.inf).all()
    assert drift.codes is None and "match_first" not in drift.values


def test_an_idempotent_codec_shows_no_drift():
    drift = drift_of(BlockCodec(2.0, 0.5), make_tone(1.5, 3), 5)
    values = drift.values
    assert values["pesq"][0] < PESQ_CEILING
    for metric in ("pesq", "si_sdr", "si_sdr_aligned", "log_mel", "level"):
        assert values[metric] == pytest.approx([values[metric][0]] * 5, abs=1e-6)
    assert np.isnan(values["match_previous"][0]).all()
    assert (values["match_previous"][1:] == 1).all() and (values["match_first"] == 1).all()
    assert (drift.codes == drift.codes[0]).all()


def test_a_codec_that_drifts_is_seen_to(tiny_codec):
    values = drift_of(tiny_codec, make_tone(1.5, 3), 3).values
    assert values["match_previous"].shape == (3, 4)
    assert (values["match_first"][0] == 1).all()
    assert values["match_previous"][1].mean() < 1
    np.testing.assert_array_equal(values["match_first"][1], values["match_previous"][1])


def test_passes_are_repeated_roundtrips(tiny_codec):
    audio = make_tone(1.2, 1)
    drift = drift_of(tiny_codec, audio, 3)
    heard = audio[None]
    for n in range(3):
        assert torch.equal(torch.from_numpy(drift.codes[n]).long(), tiny_codec.encode(heard)[0])
        heard = tiny_codec.roundtrip(heard)


# -- traps ---------------------------------------------------------------------


@pytest.mark.parametrize("n", [8, -8, 37])
def test_a_delay_is_measured_once_and_taken_out(n):
    """An odd-stride codec loses samples each pass and pads the end: 8 a pass in DAC's case."""
    codec = Effect(lambda w: late(w, n))
    delay = measure_delay(codec.roundtrip, RATE)
    assert delay.samples == n and delay.correlation > 0.9
    values = drift_of(codec, make_tone(1.5, 2), 4, delay.samples).values
    assert (values["si_sdr"] < 10).all()
    assert (values["si_sdr_aligned"] > 100).all()


def test_a_codec_without_delay_is_said_to_have_none(tiny_codec):
    assert measure_delay(lambda w: 0.3 * w, RATE).samples == 0
    lost = measure_delay(torch.zeros_like, RATE)
    assert lost.samples == 0 and not lost.is_known and "not measurable" in str(lost)


def test_delay_is_found_in_noise_and_under_inversion_of_sign_only_as_weak():
    clean = pink_noise(20000, 0)
    noisy = late(clean, 100) + 0.1 * torch.randn(20000, generator=torch.Generator().manual_seed(1))
    assert delay_between(clean, noisy, 500).samples == 100
    assert not delay_between(clean, pink_noise(20000, 1), 500).is_known


def test_align_cuts_to_what_is_shared():
    ramp = torch.arange(10.0)
    for n in (3, -3, 0):
        reference, output = align(ramp, late(ramp, n), n)
        assert torch.equal(reference, output) and len(reference) == 10 - abs(n)
    assert align(ramp, ramp, 10) is None


@pytest.mark.parametrize("gain", [2.0, 0.5])
def test_levels_change_and_nothing_clips(gain):
    audio = 0.9 * make_tone(1.5, 2) / make_tone(1.5, 2).abs().max()
    step = 20 * math.log10(gain)
    free = drift_of(Effect(lambda w: gain * w), audio, 5).values
    assert free["level"] == pytest.approx([step * n for n in range(1, 6)], abs=1e-4)
    assert (free["si_sdr"] > 100).all()  # up to 28 times full scale, and still the same shape
    held = drift_of(Effect(lambda w: gain * w), audio, 5, match_level=True).values
    assert held["level"] == pytest.approx([step] * 5, abs=1e-4)
    assert held["log_mel"] == pytest.approx([0.0] * 5, abs=1e-4)


def test_a_pass_is_one_encoding_and_one_decoding_at_the_codecs_rate(clips):
    """Whatever resampling a wrapper does inside happens once a pass; audio is read once."""
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


def test_codes_of_unequal_length_are_not_compared():
    with pytest.raises(ValueError, match=r"\(2, 5\) and \(2, 6\): trim to match"):
        token_match(torch.zeros(2, 5, dtype=torch.long), torch.zeros(2, 6, dtype=torch.long))


@pytest.mark.parametrize("name", ["tiny", "dac-odd"])
def test_lengths_hold_over_passes(name, tiny_codec):
    """A length that is no multiple of the hop, and strides that lose samples in every pass
    where nobody looks after them, give the same number of frames each time."""
    codec = tiny_codec if name == "tiny" else make_dac(name)
    drift = drift_of(codec, make_tone(1.5, 0)[:, :8123], 4)
    assert drift.codes.shape == (4, codec.spec.n_codebooks, codec.spec.n_frames(8123))
    assert np.isfinite(drift.values["si_sdr"]).all()


def test_silence_fails_and_is_counted(clips, tmp_path):
    run = measure_drift(Effect(torch.zeros_like), clips, out=tmp_path, passes=2, progress=False)
    summary = summarise(run)
    for metric in ("pesq", "si_sdr", "level"):
        estimate = summary.at(metric, 2)
        assert math.isnan(estimate.mean) and (estimate.n, estimate.n_failed) == (0, 2)
    assert summary.at("log_mel", 2).n == 2
    json.dumps(summary.as_dict(), allow_nan=False)
    silent = drift_of(BlockCodec(), torch.zeros(1, 4000), 2, match_level=True)
    assert np.isnan(silent.values["pesq"]).all() and (silent.values["match_first"] == 1).all()


def test_use_of_few_frames_is_biased_low_and_corrected():
    rng = np.random.default_rng(0)
    few = [rng.integers(0, 256, (2, 40)) for _ in range(8)]  # 320 frames, uniform: truly 100 %
    many = [rng.integers(0, 256, (2, 4000)) for _ in range(8)]
    use, corrected = (use_with_interval(few, 256)[k][0] for k in KEYS)
    assert use.mean < 95 and corrected.mean > use.mean + 3 and corrected.mean <= 100
    assert use.low < use.mean < use.high
    assert use_with_interval(many, 256)["codebook_use"][0].mean > 99
    single = use_with_interval([np.zeros((1, 9), dtype=int)], 256)["codebook_use"]
    assert single[0].mean == single[1].mean == 0 and math.isnan(single[0].low)


KEYS = ("codebook_use", "codebook_use_corrected")


def test_use_is_pooled_entropy():
    from tokgen.metrics.codebook import codebook_use

    codes = [np.random.default_rng(i).integers(0, 30, (3, 50 + i)) for i in range(4)]
    ours = use_with_interval(codes, 64)["codebook_use"]
    theirs = codebook_use([torch.from_numpy(c) for c in codes], 64)
    assert [e.mean for e in ours[1:]] == pytest.approx(theirs.tolist())
    assert ours[0].mean == pytest.approx(theirs.mean().item())
    assert all(e.n == 4 for e in ours)


# -- runs ----------------------------------------------------------------------


def test_a_run_goes_on_where_it_ended(clips, tmp_path):
    codec = Effect(lambda w: 0.9 * late(w, 3))

    def measure(passes=3, match_level=False):
        codec.calls = 0
        found = measure_drift(
            codec, clips, out=tmp_path, passes=passes, match_level=match_level, progress=False
        )
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
    assert measure(passes=2)[1] == 4 and measure(match_level=True)[1] == 6


def test_bad_clips_are_named_and_left_out(tiny_corpus, tmp_path):
    import shutil

    folder = tmp_path / "corpus"
    shutil.copytree(tiny_corpus, folder)
    (folder / "g.wav").write_bytes(b"RIFF nothing")
    clips = DriftClips(open_corpus(folder, split="test"))
    run = measure_drift(Effect(lambda w: w), clips, out=tmp_path / "out", passes=1, progress=False)
    assert len(run.clips) == 1 and "g.wav" in run.rejections[0].source
    (folder / "h.wav").write_bytes(b"")
    clips = DriftClips(open_corpus(folder, split="test"))
    with pytest.raises(ValueError, match="no usable clip"):
        measure_drift(Effect(lambda w: w), clips, out=tmp_path / "out", passes=1, progress=False)


def test_comparison_writes_what_it_prints(clips, tiny_codec, tmp_path):
    codecs = [Effect(lambda w: w, "as:is"), BlockCodec(), tiny_codec]
    found = compare_drift(codecs, clips, tmp_path, passes=3, n_samples=1, progress=False)
    content = json.loads((tmp_path / "drift.json").read_text())
    assert [c["name"] for c in content["codecs"]] == ["as:is", "block", "tiny"]
    assert set(content["backends"]) >= {p["metric"] for c in content["codecs"] for p in c["points"]}
    with (tmp_path / "drift.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (row,) = (
        r for r in rows
        if (r["codec"], r["pass"], r["metric"], r["level"]) == ("block", "3", "match_previous", "")
    )  # fmt: skip
    assert (float(row["mean"]), row["n"], row["n_failed"]) == (1.0, "2", "0")
    assert not [r for r in rows if r["metric"] == "match_previous" and r["pass"] == "1"]
    assert {r["level"] for r in rows if r["codec"] == "tiny"} == {"", "0", "1", "2", "3"}
    table = found.to_text()
    assert "PESQ @ 3" in table and "1.00 [1.00, 1.00]" in table and "4.64" in table
    assert "as:is: 2 clips, si_sdr: 2 failed" in table
    assert (tmp_path / "drift.png").stat().st_size > 5000
    heard = sorted(p.name for p in (tmp_path / "audio" / "block").rglob("*.wav"))
    assert heard == ["original.wav", "pass01.wav", "pass03.wav"]


def test_codecs_are_compared_clip_by_clip(clips, tmp_path):
    """Differences over shared clips, and tighter than two means side by side."""

    def made(name: str, ids: list[str], pesq: list[float], match: float | None) -> DriftRun:
        found = []
        for value in pesq:
            passes = {k: np.array([value, value / 2, value / 4]) for k in PER_CLIP}
            if match is not None:
                passes["match_previous"] = np.array([[math.nan] * 2, [0, 0], [match, match / 2]])
            found.append(ClipDrift(passes, None))
        return DriftRun(name, {}, 1.0, Delay(0, 1.0), ids, found, None, [])

    one = made("one", ["a", "b", "c", "x"], [1.0, 2.0, 4.0, 9.0], 0.8)
    two = made("two", ["c", "b", "a"], [4.5, 2.5, 1.5], 1.0)
    found = {(d.metric, d.passes): d for d in differences(one, two)}
    assert set(found) == {
        ("pesq", 1), ("pesq", 3), ("si_sdr_aligned", 1), ("si_sdr_aligned", 3),
        ("match_previous", 3),
    }  # fmt: skip
    at_one = found["pesq", 1].estimate
    assert (at_one.mean, at_one.low, at_one.high, at_one.n) == (0.5, 0.5, 0.5, 3)
    assert found["pesq", 3].estimate.mean == pytest.approx(0.125)
    assert found["match_previous", 3].estimate.mean == pytest.approx(0.15)
    (line,) = difference_lines(list(found.values()))
    assert line.startswith("two over one, paired: pesq @ 1 +0.500 [+0.500, +0.500], pesq @ 3")
    assert not [d for d in differences(one, made("w", ["a"], [1.0], None)) if "match" in d.metric]
    assert differences(one, made("other", ["z"], [1.0], None)) == []


def test_what_is_silent_or_missing_is_named(tiny_corpus, tmp_path):
    """An excerpt may be silent where its file is not, and a manifest may name no file."""
    folder = tmp_path / "corpus"
    tone = make_tone(1.0, 0)
    write_audio(folder / "late.wav", torch.cat([torch.zeros(1, RATE), tone], dim=1), RATE)
    write_audio(folder / "soon.wav", tone, RATE)
    rows = "late.wav,a\nsoon.wav,b\nmissing.wav,c\n"
    (folder / "metadata.csv").write_text("file_name,text\n" + rows)
    clips = DriftClips(open_corpus(folder), seconds=0.5)
    run = measure_drift(Effect(lambda w: w), clips, out=tmp_path / "out", passes=1, progress=False)
    assert len(run.clips) == 1
    reasons = {Path(r.source).name: r.reason for r in run.rejections}
    assert "first 0.5 s are silent" in reasons["late.wav"]
    assert any("missing.wav" in r.source + r.reason for r in run.rejections)
    whole = measure_drift(
        Effect(lambda w: w), DriftClips(clips.corpus, None), out=tmp_path, passes=1, progress=False
    )
    assert len(whole.clips) == 2


def test_files_hold_only_what_json_has(clips, tmp_path):
    def strict(constant: str) -> None:
        raise AssertionError(constant)

    one_clip = DriftClips(clips.corpus, 1.0, 1)
    codecs = [BlockCodec(), BlockCodec(1.0, 1.0, name="other")]
    compare_drift(codecs, one_clip, tmp_path, passes=2, phase=True, progress=False)
    for name in ("drift.json", "phase.json"):
        json.loads((tmp_path / name).read_text(), parse_constant=strict)
    with pytest.raises(ValueError, match="none has codes"):
        compare_drift([Effect(lambda w: w)], clips, tmp_path, passes=2, phase=True)


def test_unusable_settings_are_refused(clips, tmp_path):
    with pytest.raises(ValueError, match="passes = 1: give at least 2"):
        compare_drift([BlockCodec()], clips, tmp_path, passes=1)
    with pytest.raises(ValueError, match="each once"):
        compare_drift([BlockCodec(), BlockCodec()], clips, tmp_path)
    with pytest.raises(ValueError, match="at least one"):
        compare_drift([], clips, tmp_path)
    with pytest.raises(ValueError, match="seconds = -1"):
        DriftClips(clips.corpus, seconds=-1)
    with pytest.raises(ValueError, match="n = 0"):
        DriftClips(clips.corpus, n_clips=0)
