"""BigCodec gives the codes and audio of its PyPI package, from both kinds of published folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from makers.audio import make_tone
from makers.rebuilt import BIGCODEC, bigcodec_checkpoint, write_bigcodec
from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.zoo.lookup import load_codec, read_card
from tokgen.zoo.rebuilt.bigcodec import BigCodec

MIXIN = {
    "ngf": 2,
    "use_rnn": True,
    "rnn_bidirectional": False,
    "rnn_num_layers": 2,
    "up_ratios": [8, 8, 5],
    "dilations": [1, 3, 9],
    "out_channels": 8,
    "codebook_size": 50,
    "vq_num_quantizers": 1,
    "codebook_dim": 4,
}  # config.json of the package


def tone(n_samples: int) -> Tensor:
    return make_tone(n_samples / 16000, 0)[None][..., :n_samples]


def write_mixin(folder: Path) -> None:
    """Write the folder that the package's class loads."""
    prefixes = {"CodecEnc": "encoder.", "generator": "decoder."}
    parts = bigcodec_checkpoint().items()
    state = {prefixes[part] + k: v.contiguous() for part, s in parts for k, v in s.items()}
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(MIXIN))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    write_bigcodec(folder)
    return folder


def package_parts() -> tuple[Any, Any]:
    """Return encoder and decoder of the PyPI package, with the weights of `bigcodec_checkpoint`."""
    import_torchaudio()  # the package imports it
    package = pytest.importorskip("bigcodec")
    weights = bigcodec_checkpoint()
    strides = BIGCODEC["strides"]
    encoder = package.CodecEncoder(ngf=2, up_ratios=strides, out_channels=8)
    decoder = package.CodecDecoder(
        in_channels=8,
        upsample_initial_channel=16,
        up_ratios=strides[::-1],
        vq_dim=8,
        codebook_size=50,
        codebook_dim=4,
    )
    encoder.load_state_dict(weights["CodecEnc"])
    decoder.load_state_dict(weights["generator"])
    return encoder.eval(), decoder.eval()


@torch.inference_mode()
@pytest.mark.parametrize("n_frames", [1, 2, 37])
def test_equals_the_package(folder: Path, n_frames: int) -> None:
    encoder, decoder = package_parts()
    codec, waveform = load_codec(folder), tone(320 * n_frames)
    theirs = decoder(encoder(waveform), vq=True)[1]  # [K, B, T]
    codes = codec.encode(waveform)
    assert torch.equal(codes, theirs.transpose(0, 1))
    audio = decoder(decoder.vq2emb(theirs.permute(1, 2, 0)).mT, vq=False)
    torch.testing.assert_close(codec.decode(codes), audio, atol=1e-4, rtol=0)
    assert n_frames < 2 or audio.std() > 0.01


def test_the_quantizer_passes_the_gradient_of_the_package(folder: Path) -> None:
    quantizer = package_parts()[1].quantizer.train()  # in training it returns its losses
    codec = load_codec(folder)
    assert isinstance(codec, BigCodec)
    latents = codec.encode_latents(tone(3200)).detach().requires_grad_()
    ours, (theirs, codes, _) = codec.quantize_through(latents), quantizer(latents)
    assert torch.equal(ours.codes, codes.transpose(0, 1))
    torch.testing.assert_close(ours.quantized, theirs)
    weights = torch.rand_like(theirs)
    found, expected = (
        torch.autograd.grad((weights * x).sum(), latents)[0] for x in (ours.quantized, theirs)
    )
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, weights)  # it passes through both projections
    inside = quantizer.layers[0].in_proj(latents.mT).mT
    torch.testing.assert_close(codec.project(latents), inside)
    errors = (inside - codec.codebook_rows(ours.codes)).square().mean()
    torch.testing.assert_close(ours.commitment_loss, errors)


def test_both_published_forms_load_alike(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "mixin"
    other.mkdir()
    write_mixin(other)
    one, two = load_codec(folder), load_codec(other)
    assert isinstance(one, BigCodec) and isinstance(two, BigCodec)
    assert one.spec.weight_hash == two.spec.weight_hash
    assert (one.spec.hop_length, one.spec.codebook_size, one.spec.n_codebooks) == (320, 50, 1)
    card = read_card(folder)
    assert (card.class_name, card.spec.hop_length) == ("BigCodecModel", 320)
    one.save_pretrained(tmp_path / "saved")
    again = load_codec(tmp_path / "saved")
    waveform = tone(3000)
    for codec in (two, again):
        assert torch.equal(codec.encode(waveform), one.encode(waveform))
        assert torch.equal(codec.roundtrip(waveform), one.roundtrip(waveform))
    assert again.spec.weight_hash == one.spec.weight_hash


def test_an_incomplete_frame_is_padded_with_zeros(folder: Path) -> None:
    codec, waveform = load_codec(folder), tone(10 * 320)
    waveform[..., 9 * 320 + 7 :] = 0
    assert torch.equal(codec.encode(waveform[..., : 9 * 320 + 7]), codec.encode(waveform))


def test_checkpoints_that_do_not_fit_are_refused(folder: Path) -> None:
    path, parts = folder / "bigcodec.pt", bigcodec_checkpoint()
    encoder = parts["CodecEnc"]
    less = {k: v for k, v in encoder.items() if k != "block.0.bias"}
    for wrong, message in (
        ({"CodecEnc": encoder}, "has no CodecEnc and generator"),
        ({**parts, "CodecEnc": less}, "does not have BigCodec's weights: 'encoder.block.0.bias'"),
        (
            {**parts, "CodecEnc": {**encoder, "more": torch.zeros(2)}},
            "unknown tensors encoder.more",
        ),
        ({**parts, "generator": {"a": "b"}}, "'a' is a str, not a tensor"),
        ({**parts, "CodecEnc": {k: v * torch.nan for k, v in encoder.items()}}, "holds NaN"),
    ):
        torch.save(wrong, path)
        with pytest.raises(ValueError, match=rf"(?s)(mine|bigcodec\.pt).*{message}"):
            load_codec(folder)
    path.write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"bigcodec\.pt is not a checkpoint"):
        load_codec(folder)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other.pt").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"it has no config\.json"):
        load_codec(tmp_path)
    write_mixin(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"ngf": 2}))
    with pytest.raises(ValueError, match="holds None, which tokgen cannot run"):
        load_codec(tmp_path)
