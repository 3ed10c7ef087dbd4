"""Mimi gives the codes and audio of transformers' Mimi."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from makers.audio import make_tone
from makers.codecs import make_mimi
from tokgen.codec.checks import NotCausal
from tokgen.zoo.adapters.mimi import MimiCodec
from tokgen.zoo.lookup import load_codec, read_card

RATE, HOP, LEVELS = 8000, 320, 6  # of the tiny model
PUBLISHED = {
    "sampling_rate": 24000,
    "upsampling_ratios": [8, 6, 5, 4],
    "frame_rate": 12.5,
    "num_quantizers": 32,
    "codebook_size": 2048,
    "audio_channels": 1,
}


@pytest.fixture(scope="module")
def mimi() -> MimiCodec:
    return make_mimi()


def tone(n_samples: int, seed: int = 0) -> Tensor:
    """Make [1, 1, N]."""
    return make_tone(n_samples / RATE, seed, RATE)[None, :, :n_samples]


@torch.inference_mode()
@pytest.mark.parametrize("n_samples", [1, HOP - 1, HOP, HOP + 1, 20000])
@pytest.mark.parametrize("levels", [1, 2, LEVELS])
def test_equals_transformers(n_samples: int, levels: int) -> None:
    codec = make_mimi(levels * 0.125)
    assert codec.spec.n_codebooks == levels
    waveform = tone(n_samples)
    theirs = codec.model.encode(waveform, num_quantizers=levels).audio_codes
    audio = codec.model.decode(theirs).audio_values[..., :n_samples]
    codes = codec.encode(waveform)
    assert torch.equal(codes, theirs)
    torch.testing.assert_close(codec.decode(codes, n_samples), audio, atol=1e-4, rtol=0)


def test_samples_past_the_end_change_nothing(mimi: MimiCodec) -> None:
    lengths = [1, 500, 7 * HOP, 9001]
    clips = [tone(n, seed)[0, 0] for seed, n in enumerate(lengths)]
    alone = [mimi.encode(clip[None, None])[0] for clip in clips]
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(len(clips), 1, 12000, generator=generator)
    for item, clip in zip(batch, clips, strict=True):
        item[0, : len(clip)] = clip
    together = mimi.encode(batch, lengths=lengths)
    for codes, expected in zip(together, alone, strict=True):
        assert torch.equal(codes[:, : expected.shape[-1]], expected)


def test_it_is_causal(mimi: MimiCodec) -> None:
    waveform = tone(40 * HOP)
    codes = mimi.encode(waveform)
    changed = waveform.clone()
    changed[..., 20 * HOP :] = -changed[..., 20 * HOP :]
    assert torch.equal(mimi.encode(changed)[..., :20], codes[..., :20])
    assert not torch.equal(mimi.encode(changed)[..., 20:], codes[..., 20:])
    assert torch.equal(mimi.encode(waveform[..., : 20 * HOP]), codes[..., :20])


def test_more_than_one_semantic_level() -> None:
    codec = make_mimi(0.125, num_semantic_quantizers=2)
    waveform = tone(5000)
    theirs = codec.model.encode(waveform, num_quantizers=2).audio_codes
    codes = codec.encode(waveform)
    assert torch.equal(codes, theirs[:, :1])
    assert codec.decode(codes, 5000).isfinite().all()


def test_code_vectors_of_all_levels(mimi: MimiCodec) -> None:
    vectors = mimi.code_vectors()
    assert vectors.shape == (LEVELS, 32, 8)
    assert len(vectors.flatten(0, 1).unique(dim=0)) == LEVELS * 32
    assert torch.equal(make_mimi(0.25).code_vectors(), vectors[:2])


# -- numbers and bandwidths ----------------------------------------------------


def test_numbers_of_the_published_model() -> None:
    numbers = MimiCodec.numbers(PUBLISHED)
    assert numbers == {
        "sample_rate": 24000,
        "hop_length": 1920,
        "n_codebooks": 32,
        "codebook_size": 2048,
        "channels": 1,
        "latency_samples": 1920,
    }
    without = {k: v for k, v in PUBLISHED.items() if k != "frame_rate"}
    assert MimiCodec.numbers(without) == numbers
    assert MimiCodec.numbers({**without, "_frame_rate": 12.5}) == numbers


@pytest.mark.parametrize(
    ("kbps", "levels"),
    [(0.01, 1), (0.1375, 1), (0.27, 1), (0.275, 2), (1.1, 8), (2.0, 14), (4.4, 32)],
)
def test_bandwidths_are_rounded_down_to_levels(kbps: float, levels: int) -> None:
    assert MimiCodec.numbers(PUBLISHED, kbps)["n_codebooks"] == levels


@pytest.mark.parametrize("kbps", [0, -1, 4.41, 6, float("nan"), float("inf")])
def test_bandwidths_out_of_range_are_refused(kbps: float) -> None:
    with pytest.raises(ValueError, match=r"32 levels of 0.1375 kbps; give at most 4.4"):
        MimiCodec.numbers(PUBLISHED, kbps)


def test_saved_loaded_and_listed(mimi: MimiCodec, tmp_path: Path) -> None:
    folder = tmp_path / "mimi"
    mimi.model.save_pretrained(folder)
    loaded = MimiCodec.from_pretrained(folder, licence="CC-BY-4.0", bandwidth=0.5)
    assert loaded.spec.weight_hash == mimi.spec.weight_hash
    assert (loaded.spec.n_codebooks, loaded.spec.licence) == (4, "CC-BY-4.0")
    waveform = tone(5000)
    assert torch.equal(loaded.encode(waveform), mimi.encode(waveform, 4))
    found = load_codec(folder)
    assert isinstance(found, MimiCodec) and found.spec == mimi.spec
    assert read_card(folder).spec == replace(found.spec, weight_hash="")
    config = json.loads((folder / "config.json").read_text())
    config["frame_rate"] = config.pop("_frame_rate") or 25.0  # as in the hub's config.json
    (folder / "config.json").write_text(json.dumps(config))
    assert load_codec(folder).spec == mimi.spec
    assert read_card(folder).spec.hop_length == HOP


def test_codebooks_move_with_the_model() -> None:
    codec = make_mimi()
    codec.encode(tone(1000))  # transformers caches the codebooks
    assert codec.to("meta").code_vectors().device.type == "meta"


# -- streams -------------------------------------------------------------------


@pytest.mark.parametrize("levels", [1, 2, LEVELS])
@pytest.mark.parametrize("n_samples", [1, 3 * HOP, 70 * HOP + 161])
def test_streams_as_transformers_codes(n_samples: int, levels: int) -> None:
    """The longest audio is longer than the sliding window of the transformers."""
    codec = make_mimi(levels * 0.125)
    waveform = tone(n_samples)
    stream = codec.stream()
    assert stream.latency_samples == stream.start_samples == HOP
    sent = [stream.encoder.push(waveform[..., :999]), stream.encoder.push(waveform[..., 999:])]
    sent.append(stream.encoder.finish())
    codes = torch.cat([part.codes for part in sent], dim=-1)
    theirs = codec.model.encode(waveform, num_quantizers=levels).audio_codes
    assert torch.equal(codes, theirs)
    found = torch.cat([*map(stream.decoder.push, sent), stream.decoder.finish()], dim=-1)
    audio = codec.model.decode(theirs).audio_values.detach()
    torch.testing.assert_close(found, audio, atol=1e-5 * float(audio.abs().max()), rtol=0)


@pytest.mark.parametrize("n_samples", [1, HOP + 1, 20 * HOP + 7])
@pytest.mark.parametrize("size", [99, 6000])
def test_reflect_padding_waits_for_what_it_mirrors(n_samples: int, size: int) -> None:
    codec, waveform = make_mimi(pad_mode="reflect"), tone(n_samples)
    stream = codec.stream()
    assert stream.latency_samples == HOP and stream.start_samples == 4 * HOP
    sent = [*map(stream.encoder.push, waveform.split(size, -1)), stream.encoder.finish()]
    codes = torch.cat([part.codes for part in sent], dim=-1)
    assert codes.equal(codec.encode(waveform))
    found = torch.cat([*map(stream.decoder.push, sent), stream.decoder.finish()], dim=-1)
    audio = codec.decode(codes)
    torch.testing.assert_close(found, audio, atol=1e-5 * float(audio.abs().max()), rtol=0)


def test_a_stream_keeps_no_more_than_the_sliding_window(mimi: MimiCodec) -> None:
    stream = mimi.stream()
    stream.push(tone(60 * HOP))
    for half in (stream.encoder, stream.decoder):
        _, cache, _ = half._coder.stages[0]._state
        assert cache.get_seq_length() == 120  # two frames of the transformer for each of ours
        assert max(layer.keys.shape[-2] for layer in cache.layers) < 20


@pytest.mark.parametrize("settings", [{"use_causal_conv": False}, {"trim_right_ratio": 0.5}])
def test_networks_that_look_ahead_have_no_stream(settings: dict[str, object]) -> None:
    with pytest.raises(NotCausal, match="mimi is not causal"):
        make_mimi(**settings).stream()
