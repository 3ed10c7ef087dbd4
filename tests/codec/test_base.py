"""The contract of `Codec`, checked for every kind of codec."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from makers.audio import codec_tone
from makers.codecs import MAKERS, assert_same, make_encodec, noisy_decoder
from tokgen.codec.base import Codec
from tokgen.codec.batches import encode_each
from tokgen.codec.spec import Encoded
from tokgen.nn.hashes import hashes_of
from tokgen.zoo.loading import PretrainedCodec
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.stft import StftCodec


@pytest.fixture(scope="module", params=["tiny", *MAKERS])
def codec(request: pytest.FixtureRequest) -> Codec:
    if request.param == "tiny":
        return request.getfixturevalue("tiny_codec")
    return MAKERS[request.param]()


def random_lengths(codec: Codec, longest_seconds: float, n: int, seed: int) -> list[int]:
    """Draw `n` lengths in samples, evenly on a log scale from 1 to the longest."""
    rng = random.Random(seed)
    longest = longest_seconds * codec.spec.sample_rate
    return [round(longest ** rng.random()) for _ in range(n)]


def test_any_length_is_encoded_and_restored(codec: Codec) -> None:
    spec, hop = codec.spec, codec.spec.hop_length
    edges = [1, 2, hop - 1, hop, hop + 1, 3 * hop, 21 * spec.sample_rate]
    for n in edges + random_lengths(codec, 10, 8, seed=0):
        encoded = codec.encode_with_side(codec_tone(codec, n))
        codes, side = encoded.codes, encoded.side
        assert codes.shape == (1, spec.n_codebooks, spec.n_frames(n))
        assert codes.dtype == torch.int64
        assert codes.min() >= 0 and codes.max() < spec.codebook_size
        assert tuple(side) == codec.side_names
        assert all(v.shape == (1, codec.side_length(name, n)) for name, v in side.items())
        decoded = codec.decode(codes, n, side)
        assert decoded.shape == (1, 1, n)
        assert decoded.dtype == torch.float32
        assert decoded.isfinite().all()
        full = spec.n_samples(codes.shape[-1])
        assert codec.decode(codes, side=side).shape == (1, 1, full)
        assert n <= full


def test_a_batch_of_codes_of_other_levels(codec: Codec) -> None:
    encoded = codec.encode_with_side(codec_tone(codec, codec.spec.sample_rate))
    codes, n_frames = encoded.codes[0], encoded.codes.shape[-1]
    n, side = codec.spec.n_samples(n_frames), {k: v[0] for k, v in encoded.side.items()}
    both = codec.decode_batch([codes, codes[:1]], [n, n], [side, side])
    for found, levels in zip(both, (codes, codes[:1]), strict=True):
        alone = codec.decode(levels[None], side=encoded.side)[0]
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="2 codes, 1 n_samples: pass one of each"):
        codec.decode_batch([codes, codes], [n])
    with pytest.raises(ValueError, match="1 codes, 1 n_samples and 2 sides: pass one of each"):
        codec.decode_batch([codes], [n], [side, side])


def test_codes_carry_information(codec: Codec) -> None:
    one, other = (codec.encode(codec_tone(codec, codec.spec.sample_rate, seed)) for seed in (1, 2))
    assert len(one.unique()) > 4
    assert (one != other).any()


def test_a_batch_gives_the_same_codes_as_one_by_one(codec: Codec) -> None:
    lengths = [1, *random_lengths(codec, 6, 6, seed=1), 4 * codec.spec.sample_rate]
    clips = [codec_tone(codec, n, seed)[0] for seed, n in enumerate(lengths)]
    alone = [codec.encode(clip[None])[0] for clip in clips]
    for batch, expected in ((clips, alone), (clips[::-1], alone[::-1]), (clips[2:5], alone[2:5])):
        together = codec.encode_batch(batch)
        assert all(torch.equal(a, b) for a, b in zip(together, expected, strict=True))


def assert_padding_changes_nothing(codec: Codec) -> None:
    """Right-padding with noise gives each clip's own codes."""
    rate = codec.spec.sample_rate
    lengths = [1, rate // 3, rate - 7, rate // 2 + 1, round(1.3 * rate)]
    batch = 0.5 * torch.randn(len(lengths), 1, max(lengths), generator=torch.manual_seed(0))
    clips = [codec_tone(codec, n, seed) for seed, n in enumerate(lengths)]
    for item, clip in zip(batch, clips, strict=True):
        item[:, : clip.shape[-1]] = clip[0]
    encoded = codec.encode_with_side(batch, lengths=lengths)
    for i, clip in enumerate(clips):
        alone = codec.encode_with_side(clip)
        n_frames = alone.codes.shape[-1]
        assert torch.equal(encoded.codes[i, :, :n_frames], alone.codes[0])
        for name, values in alone.side.items():
            assert torch.equal(encoded.side[name][i, : values.shape[-1]], values[0])


def test_padding_does_not_change_codes(codec: Codec) -> None:
    assert_padding_changes_nothing(codec)


@pytest.mark.parametrize("name", ["speech-16k", "speech-16k-code"])
def test_padding_does_not_change_codes_of_real_codecs(name: str) -> None:
    assert_padding_changes_nothing(load_codec(name))


def test_the_encoder_hash_is_of_what_the_codes_depend_on(codec: Codec) -> None:
    assert isinstance(codec, PretrainedCodec)
    spec, waveform = codec.spec, codec_tone(codec, codec.spec.sample_rate)
    if not codec.decoder_parts:
        assert codec.spec.name == "esc" and spec.encoder_hash == spec.weight_hash
        return
    before, decoded = codec.encode_with_side(waveform), codec.roundtrip(waveform)
    with noisy_decoder(codec):
        found = hashes_of(codec.model, codec.decoder_parts)
        assert_same(codec.encode_with_side(waveform), before)
        assert not torch.equal(codec.roundtrip(waveform), decoded)
    assert found["encoder_hash"] == spec.encoder_hash
    assert len({spec.encoder_hash, spec.weight_hash, found["weight_hash"]}) == 3
    assert torch.equal(codec.roundtrip(waveform), decoded)


def test_encoding_twice_gives_the_same_codes(codec: Codec) -> None:
    waveform = codec_tone(codec, 12345)
    assert torch.equal(codec.encode(waveform), codec.encode(waveform))


def test_silence_and_full_scale(codec: Codec) -> None:
    loud = torch.ones(1, 1, 3000)
    loud[..., ::7] = -1
    for waveform in (torch.zeros(1, 1, 3000), loud):
        assert codec.roundtrip(waveform).isfinite().all()


def test_fewer_levels_are_the_first_ones(codec: Codec) -> None:
    waveform = codec_tone(codec, 4000)
    encoded = codec.encode_with_side(waveform)
    for k in range(1, codec.spec.n_codebooks + 1):
        codes = encoded.codes[:, :k]
        assert torch.equal(codec.encode(waveform, k), codes)
        assert codec.decode(codes, 4000, encoded.side).shape == waveform.shape


def test_a_batch_decodes_as_one_by_one(codec: Codec) -> None:
    lengths = [1, 4000, codec.spec.sample_rate, 4000]
    clips = [codec_tone(codec, n, seed)[0] for seed, n in enumerate(lengths)]
    rows = codec.encode_batch_with_side(clips)
    sides = [row.side for row in rows] if codec.side_names else None
    for n, row in zip(lengths, rows, strict=True):
        assert all(v.shape == (codec.side_length(name, n),) for name, v in row.side.items())
    decoded = codec.decode_batch([row.codes for row in rows], lengths, sides)
    for clip, audio in zip(clips, decoded, strict=True):
        torch.testing.assert_close(audio, codec.roundtrip(clip[None])[0], atol=1e-5, rtol=1e-4)


def test_missing_side_information_is_named(codec: Codec) -> None:
    codes = codec.encode(codec_tone(codec, 1000))
    for name in codec.side_names:
        with pytest.raises(ValueError, match=rf"needs side information \[.*'{name}'.*\]"):
            codec.decode(codes)


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (torch.zeros(1, 3, 100), r"expected mono \[B, 1, N\]"),
        (torch.zeros(100), r"expected mono \[B, 1, N\]"),
        (torch.zeros(1, 1, 0), "0 samples"),
        (torch.full((1, 1, 100), torch.nan), "NaN"),
    ],
)
def test_unusable_audio_is_refused(codec: Codec, waveform: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        codec.encode(waveform)


def test_unusable_settings_and_codes_are_refused(codec: Codec) -> None:
    spec, waveform = codec.spec, torch.zeros(1, 1, 1000)
    codes = codec.encode(waveform)
    for n in (0, spec.n_codebooks + 1):
        with pytest.raises(ValueError, match=f"levels 1..{spec.n_codebooks}"):
            codec.encode(waveform, n)
    with pytest.raises(ValueError, match="MASK token"):
        codec.decode(torch.full_like(codes, spec.codebook_size))
    with pytest.raises(ValueError, match="MASK token"):
        codec.decode(codes - spec.codebook_size)
    with pytest.raises(ValueError, match="expected integers"):
        codec.decode(codes.float())
    with pytest.raises(ValueError, match="n_samples"):
        codec.decode(codes, codes.shape[-1] * spec.hop_length + 1)
    with pytest.raises(ValueError, match="expected 1 values"):
        codec.encode(waveform, lengths=[5, 5])


def test_batches_of_stereo_audio_are_refused(tiny_codec: Codec) -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 800\): expected mono \[N\] or \[1, N\]"):
        tiny_codec.encode_batch([torch.zeros(800), torch.zeros(2, 800)])


def test_a_batch_may_hold_stereo_and_mono_clips_for_a_stereo_codec() -> None:
    codec = make_encodec("encodec-48k")
    stereo = torch.cat([codec_tone(codec, seconds=1.3, seed=seed)[0] for seed in range(2)])
    mono = codec_tone(codec, seconds=0.8)[0]
    found = codec.encode_batch_with_side([stereo, mono, mono[0]])
    for item, clip in zip(found, (stereo, mono, mono), strict=True):
        alone = codec.encode_with_side(clip[None])
        assert item.codes.equal(alone.codes[0])
        assert item.side["scales"].equal(alone.side["scales"][0])


def test_a_network_that_makes_another_number_of_frames_is_noticed(tiny_codec: StftCodec) -> None:
    spec = tiny_codec.spec
    waveform = codec_tone(tiny_codec, 8 * spec.hop_length)
    for n_frames in (7, 9):
        encoded = Encoded(torch.zeros(1, spec.n_codebooks, n_frames, dtype=torch.long))
        with pytest.raises(RuntimeError, match="must match the existing size"):
            encode_each(tiny_codec, waveform, [waveform.shape[-1]], lambda _, e=encoded: e)
