"""The causal STFT codec: its latency, its streams, and its start from a codec that looks ahead."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from makers.audio import make_tone
from makers.codecs import make_causal, make_stft_codec
from tokgen.codec.stages import StagedCodec
from tokgen.codec_training.architectures import load_into, make_trainable
from tokgen.quantizers.residual import FactorizedQuantizer
from tokgen.zoo.lookup import load_codec, read_card
from tokgen.zoo.networks.causal import fit_taps
from tokgen.zoo.networks.stft import StftCodecModel
from tokgen.zoo.stft import CausalStftCodec, StftCodec


def first_change(codec: StftCodec, waveform: Tensor, at: int) -> int:
    """Return the first sample of the decoded audio that an impulse in sample `at` changes."""
    changed = waveform.clone()
    changed[..., at] += 900.0
    one, other = (codec.decode(codec.encode(x)) for x in (waveform, changed))
    return int((one != other)[0, 0].nonzero()[0])


@pytest.mark.filterwarnings("ignore:waveform x peaks")
@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("n_fft", [640, 960])
def test_an_impulse_changes_nothing_before_the_latency(n_fft: int, lookahead: int) -> None:
    fine = {"n_codebooks": 12, "codebook_size": 512}  # so that small changes change codes
    codec = make_causal(lookahead, n_fft=n_fft, **fine)
    with torch.no_grad():
        codec.model.encoder.blocks[0].scale.mul_(20)
    hop, edge, latency = 320, (n_fft - 320) // 2, codec.spec.latency_samples
    assert latency == n_fft + lookahead * hop
    waveform = torch.zeros(1, 1, 40 * hop)
    last = 20 * hop + n_fft - edge - 1  # sample of frame 20
    lags = []
    for at in (last - hop + 1, last - hop // 2, last - 1, last):
        expected = (20 - lookahead) * hop - edge  # where frame 20 - lookahead begins
        assert first_change(codec, waveform, at) == expected
        lags.append(at - expected)
    assert first_change(codec, waveform, last + 1) == expected + hop
    assert max(lags) == latency - 1
    assert codec.stream().latency_samples == latency
    assert codec.spec.latency_ms == latency / 16


def test_the_default_is_40_ms() -> None:
    numbers = StftCodec.numbers(StftCodecModel(causal=True).config)
    assert numbers["latency_samples"] == 640  # of 16 per ms


def test_every_gradient_is_that_of_the_whole() -> None:
    """With gradients, the stages run in one piece, and give the codec's latents and audio."""
    codec, waveform = make_causal(), make_tone(0.7, 0)[None]
    with torch.no_grad():
        stepped = codec.encode_latents(waveform)
        audio = codec.decode_latents(stepped)
    whole = codec.encode_latents(waveform.clone().requires_grad_())
    torch.testing.assert_close(whole, stepped, atol=1e-5, rtol=0)
    torch.testing.assert_close(codec.decode_latents(stepped), audio, atol=1e-6, rtol=0)
    assert whole.requires_grad


def test_saved_loaded_and_described(tmp_path: Path) -> None:
    codec = make_causal()
    codec.save_pretrained(tmp_path / "live")
    loaded = load_codec(tmp_path / "live")
    assert isinstance(loaded, CausalStftCodec) and isinstance(loaded, StagedCodec)
    waveform = make_tone(0.5, 3)[None]
    assert loaded.encode(waveform).equal(codec.encode(waveform))
    assert read_card(tmp_path / "live").spec.latency_samples == 960
    assert loaded.spec.as_dict()["latency_samples"] == 960
    assert "latency_samples" not in make_stft_codec().spec.as_dict()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lookahead": 1}, "lookahead = 1 with causal = False: must be 0"),
        ({"causal": True, "lookahead": 7}, r"lookahead = 7 with causal = True: .* 0\.\.6"),
        ({"causal": True, "lookahead": -1}, "lookahead = -1"),
    ],
)
def test_a_wrong_lookahead_is_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StftCodecModel(**settings)


def test_codebooks_are_normalised_once_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """And again for every stream and file, so that changed weights give their codes."""
    codec, waveform, calls = make_causal(), make_tone(1.0, 0)[None], []
    compute = FactorizedQuantizer.directions

    def counted(level: FactorizedQuantizer) -> Tensor:
        calls.append(level)
        return compute(level)

    monkeypatch.setattr(FactorizedQuantizer, "directions", counted)
    before = codec.encode(waveform)
    assert len(calls) == codec.spec.n_codebooks
    encoder = codec.stream().encoder
    for block in waveform.split(320, dim=-1):
        encoder.push(block)
    assert len(calls) == 2 * codec.spec.n_codebooks
    for level in codec.model.quantizer.levels:
        level.codebook.weight.data.copy_(level.codebook.weight.flip(0))  # changes no version
    assert not codec.encode(waveform).equal(before)
    with torch.no_grad():
        expected = codec.quantize(codec.encode_latents(waveform))
    assert codec.encode(waveform).equal(expected)


# -- a start from a codec that looks ahead --------------------------------------


@pytest.mark.parametrize("lookahead", [0, 1])
def test_taps_keep_the_frames_that_they_see(lookahead: int) -> None:
    """A codec whose convolutions only look back gives the same latents as a causal one."""
    settings = {"kernel_size": 7, "encoder_depth": 2, "decoder_depth": 2, "latent_dim": 8}
    both = make_stft_codec(**settings).model
    causal = make_causal(lookahead, **settings).model
    with torch.no_grad():
        for name, weight in both.named_parameters():
            if name.endswith("depthwise.weight"):
                weight[..., 4:] = 0
        both.decoder.embed.weight[..., 2:] = 0
    both.spectrum.window = causal.spectrum.window
    causal.load_state_dict(fit_taps(causal, both))
    latents, waveform = torch.randn(1, 8, 80), make_tone(2.0, 0)[None]
    with torch.no_grad():
        found, expected = causal.decode_latents(latents), both.decode_latents(latents)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
        found, expected = causal.encode_latents(waveform), both.encode_latents(waveform)
        begun = 20 if lookahead else 0  # the frames before the first are then not zeros
        torch.testing.assert_close(found[..., begun:], expected[..., begun:], atol=1e-5, rtol=0)


def test_taps_of_later_frames_are_added_to_the_last() -> None:
    """So a steady input gives what it gave."""
    both, causal = (
        make_stft_codec(kernel_size=7).model,
        make_causal(0, kernel_size=7, decoder_depth=1).model,
    )
    weights = fit_taps(causal, both)
    key = "encoder.blocks.0.depthwise.weight"
    theirs = both.state_dict()[key]
    torch.testing.assert_close(weights[key].sum(-1), theirs.sum(-1))
    assert weights[key][..., :3].eq(0).all()
    assert weights[key][..., 3:6].equal(theirs[..., :3])


def test_a_causal_training_starts_from_a_codec_that_looks_ahead(tmp_path: Path) -> None:
    codec = make_stft_codec(kernel_size=7)
    codec.save_pretrained(tmp_path / "base")
    trainable = make_trainable("stft", {**codec.model.config, "causal": True})
    load_into(trainable, tmp_path / "base")
    weights = trainable.model.state_dict()
    assert weights.keys() == codec.model.state_dict().keys()
    expected = fit_taps(trainable.model, codec.model)
    assert all(weights[name].equal(value) for name, value in expected.items())
    out = trainable(make_tone(0.5, 0)[None])
    out.waveform.square().mean().backward()
    assert trainable.model.encoder.blocks[0].depthwise.weight.grad.abs().sum() > 0


def test_the_zoo_names_a_start(tiny_codec_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKGEN_ZOO", str(tiny_codec_folder.parent))
    config = load_codec("tiny").model.config
    trainable = make_trainable("stft", config)
    load_into(trainable, "tiny")
    assert trainable.as_codec().spec.weight_hash == load_codec("tiny").spec.weight_hash
