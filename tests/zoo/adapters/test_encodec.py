"""EnCodec gives the codes and audio of transformers' EnCodec and its feature extractor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import EncodecConfig

from makers.audio import make_tone
from makers.codecs import make_encodec
from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.codec.checks import NotCausal
from tokgen.codec.stages import StagedCodec
from tokgen.codec.windows import Windows
from tokgen.zoo.adapters.encodec import EncodecCodec
from tokgen.zoo.lookup import load_codec, read_card

RATE = 8000  # Hz, of the tiny models
STEREO = {
    "sampling_rate": 48000,
    "audio_channels": 2,
    "normalize": True,
    "chunk_length_s": 1.0,
    "overlap": 0.01,
    "target_bandwidths": [3.0, 6.0, 12.0, 24.0],
}


@pytest.fixture(scope="module")
def mono() -> EncodecCodec:
    return make_encodec("encodec-24k")


@pytest.fixture(scope="module")
def stereo() -> EncodecCodec:
    return make_encodec("encodec-48k")


def tone(n_samples: int, channels: int = 1) -> Tensor:
    """Make [1, C, N] with different channels."""
    clips = [make_tone(n_samples / RATE, seed, RATE) for seed in range(channels)]
    return torch.cat(clips)[None, :, :n_samples]


def upstream(codec: EncodecCodec, waveform: Tensor, bandwidth: float) -> tuple:
    """Return transformers' codes [B, K, T] of the chunks that hold audio, their scales [B, S] or
    None, and the decoded audio.
    """
    import_torchaudio()  # transformers imports it
    from transformers import EncodecFeatureExtractor

    config = codec.model.config
    extractor = EncodecFeatureExtractor(
        feature_size=config.audio_channels,
        sampling_rate=config.sampling_rate,
        chunk_length_s=config.chunk_length_s,
        overlap=config.overlap,
    )
    audio = waveform[0].numpy() if config.audio_channels > 1 else waveform[0, 0].numpy()
    inputs = extractor(audio, sampling_rate=config.sampling_rate, return_tensors="pt")
    found = codec.model.encode(**inputs, bandwidth=bandwidth)
    n_chunks = codec.spec.n_chunks(waveform.shape[-1])  # the rest is padding
    codes = torch.cat(list(found.audio_codes[:n_chunks]), dim=-1)
    scales = torch.cat(found.audio_scales[:n_chunks], -1) if config.normalize else None
    decoded = codec.model.decode(
        found.audio_codes, found.audio_scales, last_frame_pad_length=found.last_frame_pad_length
    )
    return codes, scales, decoded.audio_values[..., : waveform.shape[-1]]


@torch.inference_mode()
@pytest.mark.parametrize("n_samples", [1, 39, 40, 41, 12345])
@pytest.mark.parametrize(("bandwidth", "levels"), [(1.0, 1), (2.0, 2), (4.0, 4)])
def test_mono_equals_transformers(n_samples: int, bandwidth: float, levels: int) -> None:
    codec = make_encodec("encodec-24k", bandwidth)
    assert codec.spec.n_codebooks == levels and codec.side_names == ()
    waveform = tone(n_samples)
    codes, _, audio = upstream(codec, waveform, bandwidth)
    assert torch.equal(codec.encode(waveform), codes)
    torch.testing.assert_close(codec.decode(codes, n_samples), audio, atol=1e-4, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("n_samples", [1, 7920, 7921, 8000, 8001, 15840, 31000])
def test_stereo_equals_transformers(stereo: EncodecCodec, n_samples: int) -> None:
    """A chunk is 8000 samples, a stride 7920."""
    waveform = tone(n_samples, 2)
    codes, scales, audio = upstream(stereo, waveform, 3.0)
    encoded = stereo.encode_with_side(waveform)
    assert torch.equal(encoded.codes, codes)
    assert torch.equal(encoded.side["scales"], scales)
    decoded = stereo.decode(codes, n_samples, encoded.side, mono=False)
    torch.testing.assert_close(decoded, audio, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_fewer_levels_decode_as_transformers_does(stereo: EncodecCodec) -> None:
    waveform = tone(9000, 2)
    codes, _, audio = upstream(stereo, waveform, 1.0)
    encoded = stereo.encode_with_side(waveform, 1)
    assert torch.equal(encoded.codes, codes)
    decoded = stereo.decode(encoded.codes, 9000, encoded.side, mono=False)
    torch.testing.assert_close(decoded, audio, atol=1e-4, rtol=0)


def test_channels_are_kept_or_averaged(stereo: EncodecCodec) -> None:
    waveform = tone(9000, 2)
    decoded = stereo.roundtrip(waveform)
    assert decoded.shape == waveform.shape
    assert not torch.equal(decoded[:, 0], decoded[:, 1])
    encoded = stereo.encode_with_side(waveform)
    mixed = stereo.decode(encoded.codes, 9000, encoded.side)
    torch.testing.assert_close(mixed, decoded.mean(1, keepdim=True))
    one = tone(9000)
    both = stereo.encode_with_side(one.expand(-1, 2, -1))
    assert torch.equal(stereo.encode(one), both.codes)


def test_loudness_changes_only_the_scales(stereo: EncodecCodec) -> None:
    waveform = tone(20000)
    loud, soft = stereo.encode_with_side(waveform), stereo.encode_with_side(waveform / 8)
    assert (loud.codes == soft.codes).float().mean() > 0.999
    torch.testing.assert_close(loud.side["scales"], 8 * soft.side["scales"], rtol=1e-5, atol=1e-6)
    silent = stereo.encode_with_side(torch.zeros(1, 1, 20000))
    assert silent.side["scales"].max() < 1e-7
    decoded = stereo.decode(silent.codes, 20000, silent.side)
    assert decoded.abs().max() < 1e-6


def test_scales_and_codes_that_do_not_fit_are_refused(stereo: EncodecCodec) -> None:
    encoded = stereo.encode_with_side(tone(9000))
    scales = encoded.side["scales"]
    assert scales.shape == (1, 2)
    for wrong in (scales[:, :1], scales[0], torch.cat([scales, scales], -1)):
        with pytest.raises(ValueError, match=r"needs one per chunk, \(1, 2\), for codes"):
            stereo.decode(encoded.codes, 9000, {"scales": wrong})
    with pytest.raises(ValueError, match=r"399 frames: .* codes chunks of 200 frames"):
        stereo.decode(encoded.codes[..., 1:], 9000, encoded.side)
    with pytest.raises(ValueError, match=r"n_samples = 15841: 400 frames hold 1..15840"):
        stereo.decode(encoded.codes, 15841, encoded.side)


def test_scale_without_chunks() -> None:
    codec = make_encodec("encodec-24k", normalize=True)
    assert codec.side_names == ("scales",) and codec.side_length("scales", 12345) == 1
    waveform = tone(12345)
    codes, scales, audio = upstream(codec, waveform, 4.0)
    encoded = codec.encode_with_side(waveform)
    assert torch.equal(encoded.codes, codes) and torch.equal(encoded.side["scales"], scales)
    decoded = codec.decode(codes, 12345, encoded.side)
    torch.testing.assert_close(decoded, audio, atol=1e-4, rtol=0)


# -- numbers and bandwidths ----------------------------------------------------


def test_numbers_of_the_published_kinds() -> None:
    mono = EncodecCodec.numbers(EncodecConfig().to_dict())
    assert mono == {
        "sample_rate": 24000,
        "hop_length": 320,
        "n_codebooks": 32,
        "codebook_size": 1024,
        "channels": 1,
        "latency_samples": 320,
    }
    levels = [
        EncodecCodec.numbers(EncodecConfig().to_dict(), b)["n_codebooks"] for b in (1.5, 3, 6, 12)
    ]
    assert levels == [2, 4, 8, 16]
    stereo = EncodecCodec.numbers(EncodecConfig(**STEREO).to_dict())
    assert (stereo["n_codebooks"], stereo["channels"]) == (16, 2)
    assert (stereo["chunk_length"], stereo["chunk_stride"]) == (48000, 47520)
    assert stereo["latency_samples"] == 0
    music = {"sampling_rate": 32000, "upsampling_ratios": [8, 5, 4, 4], "codebook_size": 2048}
    config = EncodecConfig(**music, target_bandwidths=[2.2])
    assert EncodecCodec.numbers(config.to_dict())["hop_length"] == 640
    assert EncodecCodec.numbers(config.to_dict())["n_codebooks"] == config.num_quantizers == 4


def test_the_highest_bandwidth_is_the_default_and_others_are_listed() -> None:
    assert make_encodec("encodec-24k").spec == make_encodec("encodec-24k", 4.0).spec
    for wrong in (0.0, -1.0, 3.0, 24.0, float("nan")):
        with pytest.raises(ValueError, match=rf"bandwidth {wrong:g} kbps: .* has 1, 2, 4; pass"):
            make_encodec("encodec-24k", wrong)


@pytest.mark.parametrize("name", ["encodec-24k", "encodec-48k"])
def test_saved_loaded_and_listed(name: str, tmp_path: Path) -> None:
    codec = make_encodec(name)
    codec.model.save_pretrained(tmp_path / name)
    loaded = EncodecCodec.from_pretrained(tmp_path / name, licence="CC-BY-NC-4.0")
    assert loaded.spec.as_dict() == {**codec.spec.as_dict(), "licence": "CC-BY-NC-4.0"}
    found = load_codec(tmp_path / name)
    assert isinstance(found, EncodecCodec)
    card = read_card(tmp_path / name)
    assert card.spec == replace(found.spec, weight_hash="")
    waveform = tone(9000)
    assert torch.equal(loaded.encode(waveform), codec.encode(waveform))
    low = EncodecCodec.from_pretrained(tmp_path / name, bandwidth=1.0)
    assert low.spec.n_codebooks == 1
    assert torch.equal(low.encode(waveform), codec.encode(waveform, 1))
    with pytest.raises(ValueError, match="bandwidth 7 kbps"):
        EncodecCodec.from_pretrained(tmp_path / name, bandwidth=7)


# -- long audio ----------------------------------------------------------------


@pytest.mark.parametrize("causal", [True, False])
def test_windows_change_nothing(causal: bool) -> None:
    codec = make_encodec("encodec-24k", use_causal_conv=causal)
    waveform = tone(4011)
    codes = codec.encode(waveform)
    audio = codec.decode(codes)
    for codec.window_frames in (1, 13, 64):
        assert torch.equal(codec.encode(waveform), codes)
        torch.testing.assert_close(codec.decode(codes), audio, atol=1e-5, rtol=0)


def test_a_norm_over_all_frames_has_no_windows() -> None:
    codec = make_encodec("encodec-24k", norm_type="time_group_norm", use_causal_conv=False)
    waveform = tone(4011)
    codes = codec.encode(waveform)
    audio = codec.decode(codes)
    codec.window_frames = 13
    assert torch.equal(codec.encode(waveform), codes)
    assert torch.equal(codec.decode(codes), audio)


@torch.inference_mode()
@pytest.mark.parametrize("causal", [True, False])
def test_reach_is_exact(causal: bool) -> None:
    """A changed frame changes exactly the outputs in reach, before and after the LSTM."""
    codec = make_encodec("encodec-24k", use_causal_conv=causal)
    hop, middle, size = codec.spec.hop_length, 60, 121
    before, after = codec.block_encoder().stages[0], codec.block_decoder().stages[2]
    assert isinstance(before, Windows) and isinstance(after, Windows)
    waveform = tone(size * hop)
    changed = waveform.clone()
    changed[..., middle * hop : (middle + 1) * hop] += 0.1
    change = (before.run(changed, 0) - before.run(waveform, 0)).abs().amax((0, 1))
    frames = change.nonzero()[:, 0] - middle
    assert (-frames.min(), frames.max()) == (before.reach.after, before.reach.before)
    hidden = torch.randn(1, 32, size, generator=torch.Generator().manual_seed(0))
    other = hidden.clone()
    other[..., middle] += 1
    change = after.run(other, 0) - after.run(hidden, 0)
    frames = change[0, 0].nonzero()[:, 0] // hop - middle
    assert (-frames.min(), frames.max()) == (after.reach.after, after.reach.before)


# -- stages --------------------------------------------------------------------


def test_a_level_quantizes_the_residual_of_the_levels_before(mono: EncodecCodec) -> None:
    latents = mono.encode_latents(tone(4000)).detach().requires_grad_()
    codes, projected = mono.quantize(latents), mono.project(latents)
    rows = mono.codebook_rows(codes).unflatten(1, (4, -1))
    seen = projected.unflatten(1, (4, -1))
    assert torch.equal(seen[:, 0], latents)
    for k in range(1, 4):
        torch.testing.assert_close(seen[:, k], latents - rows[:, :k].sum(1))
    distances = (seen.mT[..., None, :] - mono.code_vectors()[:, None]).square().sum(-1)
    assert torch.equal(distances.argmin(-1), codes)
    torch.testing.assert_close(mono.dequantize(codes), rows.sum(1))
    assert torch.equal(mono.codebook_rows(codes[:, :2]), rows[:, :2].flatten(1, 2))
    weights = torch.randn(seen.shape, generator=torch.Generator().manual_seed(0))
    (seen * weights).sum().backward()
    assert latents.grad is not None  # rows are constants
    torch.testing.assert_close(latents.grad, weights.sum(1))


def test_gradients_reach_encoder_and_decoder_but_no_codebook() -> None:
    codec = make_encodec("encodec-24k")
    latents = codec.encode_latents(tone(2000))
    codec.decode_latents(codec.quantize_through(latents).quantized).square().sum().backward()
    for part in (codec.model.encoder, codec.model.decoder):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
    assert not list(codec.model.quantizer.parameters())
    waveform = tone(2000)
    codes = codec.encode(waveform)
    codec.model.eval()
    assert torch.equal(codec.encode(waveform), codes)


@pytest.mark.parametrize("settings", [{"normalize": True}, {"audio_channels": 2}])
def test_an_encodec_with_scales_or_two_channels_has_no_stages(settings: dict) -> None:
    codec = make_encodec("encodec-24k", **settings)
    assert not isinstance(codec, StagedCodec)
    assert codec.code_vectors().shape == (4, 32, 8)


# -- streams -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        ({"pad_mode": "constant"}, 1),
        ({"num_residual_layers": 2, "residual_kernel_size": 5}, 7),
        ({"upsampling_ratios": [3, 4, 5], "num_lstm_layers": 2}, 7),
        ({"use_conv_shortcut": False, "last_kernel_size": 3}, 7),
    ],
)
def test_layers_of_any_form_stream(settings: dict[str, object], first: int) -> None:
    codec = make_encodec("encodec-24k", **settings)
    waveform = tone(20 * codec.spec.hop_length + 7)
    stream, hop = codec.stream(), codec.spec.hop_length
    assert (stream.latency_samples, stream.start_samples) == (hop, first * hop)
    sent = [stream.encoder.push(waveform[..., :hop]), stream.encoder.push(waveform[..., hop:])]
    sent.append(stream.encoder.finish())
    codes = torch.cat([part.codes for part in sent], dim=-1)
    assert torch.equal(codes, codec.encode(waveform))
    heard = [stream.decoder.push(part) for part in sent]
    found = torch.cat([*heard, stream.decoder.finish()], dim=-1)
    torch.testing.assert_close(found, codec.decode(codes), atol=1e-6, rtol=0)


@pytest.mark.parametrize("settings", [{"use_causal_conv": False}, {"trim_right_ratio": 0.5}])
def test_networks_that_look_ahead_have_no_stream(settings: dict[str, object]) -> None:
    codec = make_encodec("encodec-24k", **settings)
    assert codec.spec.latency_samples == 0
    with pytest.raises(NotCausal, match="encodec-24k is not causal"):
        codec.stream()
