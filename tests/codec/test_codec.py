"""One contract for every codec, and DAC against transformers itself."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from makers.audio import make_tone
from makers.codecs import CLOSED, MAKERS, STRIDES, make_dac
from tokgen.codec.base import Codec
from tokgen.codec.spec import CodecSpec
from tokgen.codec.stages import UnsupportedStage, check_stages
from tokgen.zoo.adapters.dac import DacCodec, _zero_past_end


@pytest.fixture(scope="module", params=["tiny", *MAKERS])
def codec(request: pytest.FixtureRequest) -> Codec:
    if request.param == "tiny":
        return request.getfixturevalue("tiny_codec")
    return MAKERS[request.param]()


@pytest.fixture(scope="module", params=["tiny", *(name for name in MAKERS if name not in CLOSED)])
def open_codec(request: pytest.FixtureRequest) -> Codec:
    """One that shows its stages."""
    if request.param == "tiny":
        return request.getfixturevalue("tiny_codec")
    return MAKERS[request.param]()


@pytest.fixture(scope="module", params=STRIDES)
def dac(request: pytest.FixtureRequest) -> DacCodec:
    return make_dac(request.param)


def random_lengths(codec: Codec, longest_seconds: float, n: int, seed: int) -> list[int]:
    """Samples, spread evenly on a log scale from 1 to the longest."""
    rng = random.Random(seed)
    longest = longest_seconds * codec.spec.sample_rate
    return [round(longest ** rng.random()) for _ in range(n)]


def tone(codec: Codec, n_samples: int, seed: int = 0) -> Tensor:
    """[1, 1, N]"""
    rate = codec.spec.sample_rate
    return make_tone(n_samples / rate, seed, rate)[None, :, :n_samples]


# -- the contract --------------------------------------------------------------


def test_any_length_is_encoded_and_restored(codec: Codec) -> None:
    spec, hop = codec.spec, codec.spec.hop_length
    edges = [1, 2, hop - 1, hop, hop + 1, 3 * hop, 30 * spec.sample_rate]
    for n in edges + random_lengths(codec, 30, 8, seed=0):
        encoded = codec.encode_with_side(tone(codec, n))
        codes, side = encoded.codes, encoded.side
        assert codes.shape == (1, spec.n_codebooks, spec.n_frames(n))
        assert codes.dtype == torch.int64
        assert codes.min() >= 0 and codes.max() < spec.codebook_size
        assert tuple(side) == codec.side_names
        assert all(values.shape == (1, codec.side_length(n)) for values in side.values())
        decoded = codec.decode(codes, n, side)
        assert decoded.shape == (1, 1, n)
        assert decoded.dtype == torch.float32
        assert decoded.isfinite().all()
        full = spec.n_samples(codes.shape[-1])
        assert codec.decode(codes, side=side).shape == (1, 1, full)
        assert n <= full


def test_codes_carry_information(codec: Codec) -> None:
    one, other = (codec.encode(tone(codec, codec.spec.sample_rate, seed)) for seed in (1, 2))
    assert len(one.unique()) > 4
    assert (one != other).any()


def test_a_batch_gives_the_same_codes_as_one_by_one(codec: Codec) -> None:
    lengths = [1, *random_lengths(codec, 6, 6, seed=1), 4 * codec.spec.sample_rate]
    clips = [tone(codec, n, seed)[0] for seed, n in enumerate(lengths)]
    alone = [codec.encode(clip[None])[0] for clip in clips]
    for batch, expected in ((clips, alone), (clips[::-1], alone[::-1]), (clips[2:5], alone[2:5])):
        together = codec.encode_batch(batch)
        assert all(torch.equal(a, b) for a, b in zip(together, expected, strict=True))


def test_encoding_twice_gives_the_same_codes(codec: Codec) -> None:
    waveform = tone(codec, 12345)
    assert torch.equal(codec.encode(waveform), codec.encode(waveform))


def test_silence_and_full_scale(codec: Codec) -> None:
    loud = torch.ones(1, 1, 3000)
    loud[..., ::7] = -1
    for waveform in (torch.zeros(1, 1, 3000), loud):
        assert codec.roundtrip(waveform).isfinite().all()


def test_fewer_levels_are_the_first_ones(codec: Codec) -> None:
    waveform = tone(codec, 4000)
    encoded = codec.encode_with_side(waveform)
    for k in range(1, codec.spec.n_codebooks + 1):
        codes = encoded.codes[:, :k]
        assert torch.equal(codec.encode(waveform, k), codes)
        assert codec.decode(codes, 4000, encoded.side).shape == waveform.shape


def test_rows_of_a_batch_decode_as_one_by_one(codec: Codec) -> None:
    lengths = [1, 4000, codec.spec.sample_rate, 4000]
    clips = [tone(codec, n, seed)[0] for seed, n in enumerate(lengths)]
    rows = codec.encode_batch_with_side(clips)
    sides = [row.side for row in rows] if codec.side_names else None
    for n, row in zip(lengths, rows, strict=True):
        assert all(values.shape == (codec.side_length(n),) for values in row.side.values())
    decoded = codec.decode_batch([row.codes for row in rows], lengths, sides)
    for clip, audio in zip(clips, decoded, strict=True):
        torch.testing.assert_close(audio, codec.roundtrip(clip[None])[0], atol=1e-5, rtol=1e-4)


def test_missing_side_information_is_said(codec: Codec) -> None:
    codes = codec.encode(tone(codec, 1000))
    for name in codec.side_names:
        with pytest.raises(ValueError, match=rf"needs side information \['{name}'\]"):
            codec.decode(codes)


@torch.inference_mode()
def test_stages_make_up_the_verbs(open_codec: Codec) -> None:
    codec = open_codec
    spec, waveform = codec.spec, tone(codec, 4000)
    codes = codec.encode(waveform)
    latents = codec.encode_latents(waveform)
    assert torch.equal(codec.quantize(latents), codes)
    vectors = codec.code_vectors()
    assert vectors is not None
    d = vectors.shape[-1]
    assert vectors.shape == (spec.n_codebooks, spec.codebook_size, d)
    rows = codec.codebook_rows(codes)
    assert codec.project(latents).shape == rows.shape == (1, spec.n_codebooks * d, codes.shape[-1])
    for k in range(spec.n_codebooks):
        assert torch.equal(rows[0, k * d : (k + 1) * d].mT, vectors[k][codes[0, k]])
    audio = codec.decode_latents(codec.dequantize(codes))
    assert audio.shape == (1, 1, codes.shape[-1] * spec.hop_length)
    torch.testing.assert_close(audio[..., :4000], codec.decode(codes, 4000))


def test_stages_let_gradients_through(open_codec: Codec) -> None:
    codec = open_codec
    waveform = tone(codec, 2000).requires_grad_()
    codec.decode_latents(codec.encode_latents(waveform)).square().sum().backward()
    assert waveform.grad is not None and waveform.grad.abs().sum() > 0


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


def test_spec_numbers() -> None:
    spec = CodecSpec("x", sample_rate=44100, hop_length=512, n_codebooks=9, codebook_size=1000)
    assert spec.frame_rate == 44100 / 512
    assert spec.bitrate == pytest.approx(9 * 44100 / 512 * 9.96578, abs=0.1)
    assert [spec.n_frames(n) for n in (1, 512, 513)] == [1, 1, 2]
    with pytest.raises(ValueError, match=r"hop_length = 0.5"):
        CodecSpec("x", 44100, 0.5, 9, 1000)  # type: ignore[arg-type]


def test_spec_numbers_of_chunks() -> None:
    """EnCodec at 48 kHz: a second each, overlapping by 1 %."""
    spec = CodecSpec("x", 48000, 320, 16, 1024, chunk_length=48000, chunk_stride=47520)
    assert spec.frame_rate == 150 * 48000 / 47520
    assert [spec.n_chunks(n) for n in (1, 47520, 47521, 48000, 95041)] == [1, 1, 2, 2, 3]
    assert [spec.n_frames(n) for n in (1, 47521)] == [150, 300]
    assert [spec.n_samples(t) for t in (150, 300)] == [47520, 95040]
    for t in (0, 149, 151):
        with pytest.raises(ValueError, match=f"{t} frames: x codes chunks of 150 frames"):
            spec.n_samples(t)
    for length, stride in ((48001, 47520), (48000, 48001), (48000, 0)):
        with pytest.raises(ValueError, match=f"chunks of {length} samples every {stride}"):
            CodecSpec("x", 48000, 320, 16, 1024, chunk_length=length, chunk_stride=stride)


@pytest.mark.parametrize("name", sorted(CLOSED))
def test_codecs_that_are_closed_say_so(name: str) -> None:
    codec = MAKERS[name]()
    assert not hasattr(codec, "encode_latents")
    with pytest.raises(UnsupportedStage, match=r"does not expose its stages.*DAC"):
        check_stages(codec)


def test_codecs_with_stages_pass_the_check(tiny_codec: Codec) -> None:
    assert check_stages(tiny_codec) is tiny_codec


# -- DAC against transformers --------------------------------------------------


@torch.inference_mode()
@pytest.mark.parametrize("n_frames", [1, 2, 57])
def test_dac_equals_transformers(dac: DacCodec, n_frames: int) -> None:
    waveform = tone(dac, n_frames * dac.spec.hop_length)
    theirs = dac.model.encode(waveform)
    audio = dac.model.decode(audio_codes=theirs.audio_codes).audio_values
    codes = dac.encode(waveform)
    assert torch.equal(codes, theirs.audio_codes)
    ours = dac.decode(codes)[:, 0, : audio.shape[-1]]
    torch.testing.assert_close(ours, audio, atol=1e-4, rtol=0)
    projected = dac.project(dac.encode_latents(waveform))
    torch.testing.assert_close(projected, theirs.projected_latents)
    torch.testing.assert_close(dac.dequantize(codes), theirs.quantized_representation)


def test_dac_windows_change_nothing(dac: DacCodec) -> None:
    waveform = tone(dac, dac.spec.sample_rate // 2 + 3)
    codes = dac.encode(waveform)
    audio = dac.decode(codes)
    before = dac.window_frames, dac.whole_frames
    dac.whole_frames = 0
    try:
        for dac.window_frames in (1, 13, 64):
            assert torch.equal(dac.encode(waveform), codes)
            torch.testing.assert_close(dac.decode(codes), audio, atol=1e-5, rtol=0)
    finally:
        dac.window_frames, dac.whole_frames = before


def test_dac_reach_is_exact(dac: DacCodec) -> None:
    """A frame's gradient reaches the first and the last frame that it may, and none beyond."""
    hop, middle, size = dac.spec.hop_length, 60, 121
    network = copy.deepcopy(dac.model).double()  # the outermost are too weak for float32
    waveform = tone(dac, size * hop).double().requires_grad_()
    network.encoder(waveform)[..., middle].square().sum().backward()
    assert waveform.grad is not None
    frames = waveform.grad[0, 0].nonzero()[:, 0] // hop - middle
    assert (-frames.min(), frames.max()) == (dac.encoder_reach.before, dac.encoder_reach.after)
    quantized = dac.dequantize(dac.encode(waveform.detach().float()))
    quantized = quantized.detach().double().requires_grad_()
    audio = network.decoder(quantized)[..., middle * hop : (middle + 1) * hop]
    audio.square().sum().backward()
    assert quantized.grad is not None
    frames = quantized.grad.abs().amax((0, 1)).nonzero()[:, 0] - middle
    assert (-frames.min(), frames.max()) == (dac.decoder_reach.before, dac.decoder_reach.after)


def test_dac_batch_of_a_gpu_equals_one_by_one(dac: DacCodec) -> None:
    """The masked pass, which a CPU run does not take by itself."""
    lengths = [1, 333, 2 * dac.spec.hop_length, 5000]
    batch = torch.cat([tone(dac, 5000, seed) for seed in range(4)])  # lengths say where each ends
    frames = torch.tensor([dac.spec.n_frames(n) for n in lengths])
    clean = batch.clone()
    for item, n in zip(clean, lengths, strict=True):
        item[:, n:] = 0
    with torch.inference_mode():
        with _zero_past_end(dac.model.encoder, frames, int(frames.max())):
            latents = dac.encode_latents(clean)
        codes = dac._encode_together(batch, lengths)
        for i, n in enumerate(lengths):
            alone = dac.encode_latents(batch[i : i + 1, :, :n])
            torch.testing.assert_close(latents[i : i + 1, :, : frames[i]], alone)
            same = codes[i, :, : frames[i]] == dac.encode(batch[i : i + 1, :, :n])[0]
            assert same.float().mean() > 0.99
    assert not any(m._forward_pre_hooks for m in dac.model.encoder.modules())


def test_dac_saves_and_loads(tmp_path: Path) -> None:
    codec = make_dac("dac-odd")
    codec.model.save_pretrained(tmp_path / "mine")
    loaded = DacCodec.from_pretrained(tmp_path / "mine", licence="MIT")
    assert loaded.spec.name == "mine"
    assert loaded.spec.licence == "MIT"
    assert loaded.spec.weight_hash == codec.spec.weight_hash
    assert loaded.spec.hop_length == 40
    waveform = tone(codec, 3000)
    assert torch.equal(loaded.encode(waveform), codec.encode(waveform))


def test_dac_half_precision_weights_load_as_float32(tmp_path: Path) -> None:
    codec = make_dac("dac-even")
    codec.model.half().save_pretrained(tmp_path / "half")
    loaded = DacCodec.from_pretrained(tmp_path / "half")
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}


def test_dac_refuses_weights_that_do_not_fit(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    make_dac("dac-even").model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    state = load_file(weights)
    name, tensor = next(iter(state.items()))
    save_file({k: v for k, v in state.items() if k != name}, weights, {"format": "pt"})
    with pytest.raises(ValueError, match="missing_keys"):
        DacCodec.from_pretrained(tmp_path)
    save_file(state | {"more": tensor.clone()}, weights, {"format": "pt"})
    with pytest.raises(ValueError, match="unexpected_keys"):
        DacCodec.from_pretrained(tmp_path)
    save_file(state | {name: tensor.new_zeros(7, 7, 7)}, weights, {"format": "pt"})
    with pytest.raises(ValueError, match="do not fit"):
        DacCodec.from_pretrained(tmp_path)
    weights.write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match="do not fit"):
        DacCodec.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "encodec"}')
    with pytest.raises(ValueError, match="'encodec', not a 'dac'"):
        DacCodec.from_pretrained(tmp_path)


def test_batches_are_of_mono_audio(tiny_codec: Codec) -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 800\): expected mono \[N\] or \[1, N\]"):
        tiny_codec.encode_batch([torch.zeros(800), torch.zeros(2, 800)])
