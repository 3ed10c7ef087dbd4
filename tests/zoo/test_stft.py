"""The STFT codec and its network: spectrum, windows, stages, size."""

import pytest
import torch

from makers.audio import make_tone
from makers.codecs import make_stft_codec
from tokgen.codec.long_audio import encode_blocks
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.networks.spectrum import Spectrum
from tokgen.zoo.networks.stft import StftCodecModel


@pytest.mark.parametrize(("n_fft", "hop"), [(640, 320), (1280, 320), (960, 320), (64, 16)])
def test_synthesis_inverts_analysis(n_fft, hop):
    spectrum = Spectrum(n_fft, hop)
    audio = 0.1 * torch.randn(2, 1, 30 * hop, generator=torch.Generator().manual_seed(0))
    back = spectrum.synthesise(spectrum.analyse(audio))
    torch.testing.assert_close(back, audio, atol=1e-4, rtol=1e-3)


def test_levels_are_standardised_once_fitted():
    spectrum = Spectrum(640, 320)
    audio = torch.stack([make_tone(1.0, s) for s in range(4)])
    spectrum.fit_levels(audio)
    levels = spectrum.analyse(audio)[..., :321].flatten(0, 1)
    assert levels.mean().abs() < 1e-4
    assert levels.std(0).median() == pytest.approx(1, abs=1e-3)
    back = spectrum.synthesise(spectrum.analyse(audio))
    torch.testing.assert_close(back, audio, atol=1e-4, rtol=1e-3)


def test_a_window_must_be_a_multiple_of_the_hop():
    with pytest.raises(ValueError, match="n_fft = 500"):
        Spectrum(500, 320)


def test_silence_has_no_phase():
    features = Spectrum(640, 320).analyse(torch.zeros(1, 1, 3200))
    assert features[..., 321:].eq(0).all()


@pytest.mark.parametrize("seconds", [0.013, 3.7, 9.99])
def test_windows_change_neither_codes_nor_audio(seconds):
    codec = make_stft_codec(kernel_size=7, encoder_depth=2, decoder_depth=2)
    audio = make_tone(seconds, 0)[None]
    codes = codec.encode(audio)
    decoded = codec.decode(codes, audio.shape[-1])
    codec.window_frames = 50
    assert codec.encode(audio).equal(codes)
    torch.testing.assert_close(codec.decode(codes, audio.shape[-1]), decoded, atol=1e-6, rtol=0)
    batch = [audio[0], audio[0, :, : audio.shape[-1] // 3 + 1]]
    for got, clip in zip(codec.encode_batch(batch), batch, strict=True):
        assert got.equal(codec.encode(clip[None])[0])


def test_stages_compose_to_encode_and_decode():
    codec = make_stft_codec()
    audio = make_tone(0.8, 1)[None]
    latents = codec.encode_latents(audio)
    codes = codec.quantize(latents)
    assert codes.equal(codec.encode(audio))
    rms = latents.square().mean(1).sqrt()
    torch.testing.assert_close(rms, torch.ones_like(rms), atol=1e-2, rtol=0)
    assert codec.project(latents).shape == codec.codebook_rows(codes).shape
    decoded = codec.decode_latents(codec.dequantize(codes))
    torch.testing.assert_close(decoded, codec.decode(codes))


def test_excerpts_come_back_as_from_a_round_trip():
    codec = load_codec("speech-16k")
    audio = torch.stack([make_tone(0.3, seed) for seed in range(3)])[..., :4789]
    whole, excerpts = codec.roundtrip(audio), codec.excerpt_roundtrip(audio)
    assert whole.shape == excerpts.shape
    error = (whole - excerpts).square().sum() / whole.square().sum()
    assert error < 1e-2  # single codes may change by rounding


def test_gradients_reach_encoder_and_decoder_through_codes():
    model = make_stft_codec().model.train()
    out, result = model(make_tone(0.5, 0)[None])
    out.square().mean().backward()
    for part in (model.encoder, model.decoder):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
    assert result.codes.max() < 60


def test_the_embedded_codec_is_within_its_budget():
    model = StftCodecModel()
    n = sum(p.numel() for p in model.parameters())
    assert n < 6_000_000 and 2 * n < 11_000_000


def test_a_bandwidth_selects_coarse_levels(tmp_path):
    codec, audio = make_stft_codec(), make_tone(1.0, 0)[None]
    codec.save_pretrained(tmp_path / "tiny")
    kbps = round(2 * codec.spec.bitrate / 4000, 4)
    two = load_codec(f"{tmp_path}/tiny:{kbps}")
    assert two.spec.n_codebooks == 2 and two.spec.weight_hash == codec.spec.weight_hash
    assert two.spec.bitrate == codec.spec.bitrate / 2 and two.spec.name == f"tiny:{kbps:g}"
    codes = two.encode(audio)
    assert codes.equal(codec.encode(audio, 2))
    assert two.decode(codes, 16000).equal(codec.decode(codes, 16000))
    assert encode_blocks(two, audio.split(999, dim=-1)).codes.equal(codes)
    assert two.encode(audio, beam=4).equal(codec.encode(audio, 2, beam=4))
    latents = two.encode_latents(audio)
    through = two.quantize_through(latents)
    assert through.codes.equal(codes) and two.code_vectors().shape == (2, 60, 4)
    assert through.projected_latents.equal(codec.project(latents)[:, :8])
    two.save_pretrained(tmp_path / "again")
    assert load_codec(tmp_path / "again").spec.n_codebooks == 4


def test_bandwidths_are_named():
    with pytest.raises(ValueError, match=r"bandwidth 2.2 kbps: the model has 0.5, 1, 1.5, 2,"):
        load_codec("speech-16k:2.2")
