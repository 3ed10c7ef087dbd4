"""The stereo EnCodec with chunks and scales in training: losses, chunks, saving, the recipe."""

from __future__ import annotations

import pytest
import torch
from transformers import EncodecConfig

from makers.audio import make_tone
from makers.codec_training import fit
from makers.recipes import ROOT
from tokgen.bitstream.compressed import compress, decompress
from tokgen.codec_training.architectures import load_into, make_trainable
from tokgen.codec_training.discriminators.kinds import check_fits, make_discriminator
from tokgen.codec_training.settings import CodecTrainingSettings
from tokgen.codec_training.trainable import TrainableCodec
from tokgen.codec_training.validation import validate
from tokgen.corpus.listed import open_corpus
from tokgen.runs.settings import parse_settings
from tokgen.zoo.lookup import load_codec

CHUNK, STRIDE = 4160, 4118  # samples
SMALL = {
    "sampling_rate": 16000, "num_filters": 4, "hidden_size": 16, "upsampling_ratios": [8, 5, 4, 2],
    "num_lstm_layers": 1, "codebook_size": 32, "target_bandwidths": [0.25, 0.5, 1.0],
    "audio_channels": 2, "normalize": True, "chunk_length_s": 0.26, "overlap": 0.01,
    "norm_type": "time_group_norm", "use_causal_conv": False,
}  # fmt: skip


def make(seed: int = 0) -> TrainableCodec:
    torch.manual_seed(seed)
    return make_trainable("encodec", SMALL)


def stereo(seconds: float, seed: int) -> torch.Tensor:
    """Two voices at different levels, [1, 2, N]."""
    return torch.stack([make_tone(seconds, seed)[0], 0.3 * make_tone(seconds, seed + 50)[0]])[None]


@pytest.fixture(scope="module")
def audio() -> torch.Tensor:
    return torch.cat([(1 + seed) / 6 * stereo(CHUNK / 16000, seed) for seed in range(6)])


@pytest.fixture(scope="module")
def trained(audio) -> tuple[TrainableCodec, list[float]]:
    """A codec after 30 steps, and its losses."""
    codec = make()
    losses = fit(codec, audio)
    return codec.eval(), losses


def test_losses_fall(trained):
    _, losses = trained
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


def test_a_crop_of_one_chunk_is_one_chunk_and_validation_codes_as_the_codec(audio):
    codec = make()
    assert codec(audio).codes.shape[-1] == 13 == CHUNK // 320
    assert codec(audio[..., :3000]).codes.shape[-1] == 10
    assert codec.eval()(audio).codes.shape[-1] == 26  # the last chunk has 42 samples of audio


def test_a_saved_codec_codes_long_audio_as_in_training(trained, tmp_path):
    codec, _ = trained
    codec.save(tmp_path)
    saved, whole = load_codec(tmp_path), stereo(1.0, 9)
    with torch.no_grad():
        out = codec(whole)
    encoded = saved.encode_with_side(whole)
    assert encoded.codes.shape == (1, 4, 4 * 13) and encoded.side["scales"].shape == (1, 4)
    assert encoded.codes.equal(out.codes)
    decoded = saved.decode(encoded.codes, 16000, encoded.side, mono=False)
    assert decoded.shape == whole.shape
    torch.testing.assert_close(decoded, out.waveform, atol=1e-5, rtol=1e-4)
    again = make(seed=1)
    load_into(again, tmp_path)
    assert again.eval()(whole).codes.equal(out.codes)


def test_each_chunk_has_its_own_scale(trained):
    """A quieter chunk has the codes of the louder one, and its audio is quieter."""
    codec = trained[0].as_codec()
    loud = stereo(CHUNK / 16000, 3)
    one, other = (codec.encode_with_side(x) for x in (loud, 0.01 * loud))
    assert (one.codes == other.codes).float().mean() > 0.9
    ratio = (other.side["scales"][0, 0] / one.side["scales"][0, 0]).item()
    assert ratio == pytest.approx(0.01, rel=1e-3)


def test_scales_go_through_compressed_files(trained):
    codec, whole = trained[0].as_codec(), stereo(1.0, 9)
    encoded = codec.encode_with_side(whole)
    plain = codec.decode(encoded.codes, 16000, encoded.side, mono=False)
    found = decompress(compress(whole, codec, entropy="packed"), codec)
    assert found.waveform.shape == plain.shape and found.waveform.equal(plain)


def test_opposite_channels_do_not_break_the_training():
    """Their mean is silent, so transformers' formula divides by 1e-8."""
    codec, voice = make(), make_tone(CHUNK / 16000, 1)
    out = codec(torch.stack([voice, -voice], 1))
    (out.waveform.square().mean() + out.commitment_loss).backward()
    gradients = [p.grad for p in codec.model.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in gradients) and out.waveform.isfinite().all()


def test_each_batch_names_its_bandwidth(audio):
    codec = make()
    codec(audio)
    seen = {(out.bandwidth, out.codes.shape[1]) for out in (codec(audio[:2]) for _ in range(20))}
    assert seen == {(0, 1), (1, 2), (2, 4)}
    assert codec.eval()(audio).bandwidth == -1


def test_validation_keeps_stereo_and_mono_clips(trained, tmp_path):
    from tokgen.audio.files import read_audio, write_audio

    clips = stereo(2.1, 4)[0]
    write_audio(tmp_path / "in/a.wav", clips, 16000)
    write_audio(tmp_path / "in/b.wav", clips[0], 16000)
    found = validate(trained[0], open_corpus(tmp_path / "in"), tmp_path / "out", quantize=True)
    assert found["n"] == 2 and len(found["codebook_use"]) == 4
    for name, channels in (("000", 2), ("001", 1)):
        for kind in ("original", "decoded"):
            path = tmp_path / f"out/{name}.{kind}.wav"
            assert read_audio(path, channels=None)[0].shape[0] == channels


def test_the_config_has_the_papers_settings():
    s = parse_settings(CodecTrainingSettings, ROOT / "recipes/train_codec.encodec48k.yaml", [])
    w = s.weights
    assert (w.time, w.mel, w.adversarial, w.feature, w.commitment) == (0.1, 1, 4, 4, 1)
    assert (w.spectral, w.codebook) == (0, 0)
    assert s.balancer and s.discriminator_share == 0.5 and s.seconds == 1.0
    codec = EncodecConfig(**s.model)
    assert (codec.frame_rate, codec.num_quantizers) == (150, 16)
    assert (codec.chunk_length, codec.chunk_stride) == (48000, 47520)
    assert codec.normalize and codec.norm_type == "time_group_norm" and not codec.use_causal_conv
    check_fits(make_discriminator(s.discriminator), codec.audio_channels, 4)
