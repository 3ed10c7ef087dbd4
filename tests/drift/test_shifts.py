"""Clips that move between passes: exact for an identity codec, and undone before scoring."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from makers.audio import RATE, make_tone
from makers.codecs import BlockCodec
from makers.effects import Effect, late
from tokgen.codec.spec import CodecSpec, Encoded
from tokgen.corpus.listed import Corpus, open_corpus
from tokgen.drift.clips import DriftClips
from tokgen.drift.compare import measure_drift
from tokgen.drift.differences import differences
from tokgen.drift.passes import drift_of, run_drift
from tokgen.drift.shifts import frame_of, place_clip

SHIFTS = [37, -61, "random"]


class Exact(BlockCodec):
    """Codes every sample exactly, as the bits of its float: 8 levels of 4 bits, frames of 32."""

    def __init__(self) -> None:
        super().__init__(name="exact")
        self.spec = CodecSpec("exact", RATE, 32, 256, 16)

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        room = -waveform.shape[-1] % 32
        bits = torch.nn.functional.pad(waveform, (0, room)).view(torch.int32).long() & 0xFFFFFFFF
        parts = torch.stack([(bits >> (4 * i)) & 15 for i in range(8)], dim=-1)  # [B, 1, N, 8]
        return Encoded(parts.reshape(len(waveform), -1, 256).mT.contiguous())

    def _decode(self, codes: Tensor, side) -> Tensor:
        parts = codes.mT.reshape(len(codes), 1, -1, 8)
        bits = sum(parts[..., i] << (4 * i) for i in range(8))
        return (
            torch.where(bits >= 1 << 31, bits - (1 << 32), bits).to(torch.int32).view(torch.float32)
        )


@pytest.fixture
def corpus(tiny_corpus: Path) -> Corpus:
    return open_corpus(tiny_corpus, split="test")


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("codec", [Effect(lambda w: w), Exact()], ids=["waveform", "codes"])
def test_an_identity_codec_stays_at_the_ceiling_under_any_shift(codec, shift, corpus, tmp_path):
    clips = DriftClips(corpus, 1.0)
    run = run_drift(codec, clips, out=tmp_path, passes=5, shift=shift, progress=False)
    for n in range(1, 6):
        assert run.at("pesq", n) == pytest.approx(4.6439, abs=1e-4)
        assert (run.at("si_sdr", n) == math.inf).all() and not run.at("level", n).any()
    heard = [path.read_bytes() for path in sorted((tmp_path / "audio").rglob("*.wav"))]
    assert len(heard) == 2 * 3 and len(set(heard)) == 2  # original, first and last pass


def test_a_codec_hears_the_clip_where_its_place_says(tiny_codec):
    """The codec gets zeros, the clip, and zeros; the codes that count are those of the clip."""
    heard: list[Tensor] = []
    audio = make_tone(0.5, 1)
    n, places = audio.shape[-1], [0, 259, 198]
    drift_of(Effect(lambda w: (heard.append(w), w)[1]), audio, 3, places=places)
    for place, given in zip(places, heard, strict=True):
        assert given.shape == (1, 1, n + 259)
        assert torch.equal(given[0, :, place : place + n], audio)
        assert given.abs().sum().item() == pytest.approx(audio.abs().sum().item(), rel=1e-6)
    moved = drift_of(tiny_codec, audio, 3, places=places)
    still = drift_of(tiny_codec, audio, 3)
    assert moved.codes.shape[-1] == tiny_codec.spec.n_frames(n)  # those of the clip
    assert "match_previous" in still.values and "match_previous" not in moved.values


def test_shifts_undo_what_unchanged_frames_gave():
    """A codec that repeats itself on the same frames drifts once they move."""
    codec, audio = BlockCodec(2.0, 0.5), make_tone(1.5, 3)
    still = drift_of(codec, audio, 6, match_level=False).values["si_sdr"]
    places = place_clip(1, 6, 4)
    moved = drift_of(codec, audio, 6, match_level=False, places=places).values["si_sdr"]
    assert still == pytest.approx([still[0]] * 6, abs=1e-6)
    assert moved[0] == pytest.approx(still[0], abs=0.01) and moved[-1] < still[-1] - 1


def test_a_delay_is_taken_out_under_shifts():
    codec = Effect(lambda w: late(w, 8))
    places = place_clip(37, 4, 320)
    values = drift_of(codec, make_tone(1.5, 2), 4, delay=8, places=places).values
    assert (values["si_sdr_aligned"] > 100).all()


def test_places():
    assert place_clip(0, 3, 320) == [0, 0, 0]
    assert place_clip(37, 4, 320) == [0, 37, 74, 111]
    assert place_clip(-61, 4, 320) == [0, 259, 198, 137]
    drawn = place_clip("random", 6001, 320, clip="a")
    assert drawn == place_clip("random", 6001, 320, clip="a")
    steps = np.diff(drawn) % 320
    assert drawn[0] == 0 and set(steps) == set(range(1, 320))  # every shift but none
    assert drawn != place_clip("random", 6001, 320, clip="b")
    assert drawn != place_clip("random", 6001, 320, clip="a", seed=1)
    assert drawn[:9] == place_clip("random", 9, 320, clip="a")
    for shift, frame in ((640, 320), (-320, 320), ("random", 1)):
        with pytest.raises(ValueError, match=f"shift = {shift}: whole frames of {frame} samples"):
            place_clip(shift, 3, frame)
    for wrong in (1.5, "some", True, None):
        with pytest.raises(ValueError, match="whole number of samples, or 'random'"):
            place_clip(wrong, 3, 320)


def test_a_frame_is_that_of_the_codec_or_20_ms(tiny_codec):
    assert frame_of(tiny_codec.spec) == tiny_codec.spec.hop_length
    assert frame_of(Effect(lambda w: w).spec) == 320


def test_conditions_are_named_and_not_mixed(corpus, tiny_codec, tmp_path):
    settings = {"passes": 2, "clip_seconds": 0.5, "clips": 1, "progress": False}
    found = measure_drift(tiny_codec, corpus, tmp_path / "a", shift=-61, **settings)
    said = "first 0.5 s of clips, levels matched, moved by -61 samples between passes"
    assert said in found.table()
    content = json.loads((tmp_path / "a" / "drift.json").read_text())
    assert content["settings"]["shift"] == -61 and content["settings"]["match_level"] is True
    assert content["codecs"][0]["conditions"] == said
    metrics = {p["metric"] for p in content["codecs"][0]["points"]}
    assert "codebook_use" in metrics and not [m for m in metrics if "match" in m]
    other = measure_drift(tiny_codec, corpus, tmp_path / "b", match_level=False, **settings)
    assert "first 0.5 s of clips, levels not matched\n" in other.table() + "\n"
    with pytest.raises(ValueError, match=r"levels matched, moved by .* tiny with .* not matched"):
        differences(found.runs[0], other.runs[0])


def test_the_picture_names_the_conditions(corpus, tiny_codec, tmp_path, monkeypatch):
    from tokgen.drift import plots

    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    settings = {"passes": 2, "clip_seconds": 0.5, "clips": 1, "progress": False}
    measure_drift(tiny_codec, corpus, tmp_path, shift="random", **settings)
    (figure,) = figures
    assert figure.get_suptitle().endswith("moved by random shifts between passes")
    assert [t.get_text() for t in figure.axes[3].texts] == ["not defined under shifts"]
