"""SNAC gives the codes and audio of its package, and the same audio each time."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from makers.audio import make_tone
from makers.library_codecs import SNAC, make_snac
from tokgen.zoo.adapters.snac import CHECKPOINT, FixedNoise, SnacCodec, make_model
from tokgen.zoo.lookup import load_codec, read_card

HOP = 160
WINDOW = 8 * HOP  # 32 frames of the finest level


@pytest.fixture(scope="module")
def codec() -> SnacCodec:
    return make_snac()


@pytest.fixture
def folder(codec: SnacCodec, tmp_path: Path) -> Path:
    """A folder as it is published."""
    folder = tmp_path / "mine"
    folder.mkdir()
    torch.save(codec.model.state_dict(), folder / CHECKPOINT)
    (folder / "config.json").write_text(json.dumps(SNAC))
    return folder


def tone(n_samples: int) -> Tensor:
    return make_tone(n_samples / 8000, 0, 8000)[None]


@torch.inference_mode()
@pytest.mark.parametrize("window", [None, 32])
@pytest.mark.parametrize("strides", [[4, 2, 1], [8, 4, 2, 1]])
def test_equals_the_package_without_noise(window: int | None, strides: list[int]) -> None:
    codec = make_snac(noise=False, attn_window_size=window, vq_strides=strides)
    waveform = tone(5 * WINDOW)
    theirs = codec.model.encode(waveform)
    codes = codec.encode(waveform)
    assert codes.shape[1] == (7 if len(strides) == 3 else 15)
    assert all(a.equal(b) for a, b in zip(codec.layout.split(codes), theirs, strict=True))
    audio = codec.model.decode(theirs)
    assert audio.std() > 0.01
    torch.testing.assert_close(codec.decode(codes), audio, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_equals_the_package_with_the_same_noise(
    codec: SnacCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package's own blocks, with the noise that this codec adds, give the same audio."""
    package = make_model(SNAC)
    package.load_state_dict(codec.model.state_dict())
    fixed = [m for m in codec.model.modules() if isinstance(m, FixedNoise)]
    assert len(fixed) == 3
    draws = iter(fixed)

    def randn(shape: tuple[int, ...], **_: object) -> Tensor:
        block = next(draws)
        return FixedNoise(lambda x: x, block.index)(torch.ones(shape)) - 1  # type: ignore[arg-type]

    waveform = tone(2 * WINDOW)
    levels = package.encode(waveform)
    monkeypatch.setattr(torch, "randn", randn)
    theirs = package.decode(levels)
    monkeypatch.undo()
    ours = codec.decode(codec.encode(waveform))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_noise_is_standard_and_differs_between_blocks() -> None:
    ones = torch.ones(1, 1, 20000)
    draws = [FixedNoise(torch.nn.Identity(), i)(ones) - 1 for i in range(3)]
    for noise in draws:
        assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03
    assert not draws[0].equal(draws[1])


def test_decoding_is_the_same_each_time_and_in_a_batch(codec: SnacCodec) -> None:
    codes = [codec.encode(tone(4000).roll(i, -1)) for i in range(3)]
    alone = [codec.decode(c) for c in codes]
    torch.randn(7)  # the state of torch's generator does not matter
    assert codec.decode(codes[0]).equal(alone[0])
    together = codec.decode(torch.cat(codes))
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)
    assert not codec.decode(codes[1]).allclose(alone[0], atol=1e-3)


@torch.inference_mode()
def test_missing_frames_of_the_last_window_are_those_of_silence(codec: SnacCodec) -> None:
    codes = codec.encode(tone(WINDOW + 3 * HOP))
    assert codes.shape[-1] == 11
    silence = codec.encode(torch.zeros(1, 1, WINDOW))[..., 3:]
    whole = codec.decode(torch.cat([codes, silence], -1))
    torch.testing.assert_close(codec.decode(codes), whole[..., : 11 * HOP])


def test_some_levels_add_what_they_know(codec: SnacCodec) -> None:
    """Codes of 2 of 7 levels have the coarsest level, and half of the next one."""
    codes = codec.encode(tone(WINDOW))
    one, two, three = (codec.decode(codes[:, :k]) for k in (1, 2, 3))
    assert not one.allclose(two) and not two.allclose(three)
    with torch.no_grad():
        quantizers = codec.model.quantizer.quantizers
        rows = quantizers[0].out_proj(quantizers[0].decode_code(codes[:, 0]))
        expected = codec.model.decoder(rows.repeat_interleave(4, -1))
    torch.testing.assert_close(one, expected)


def test_code_vectors_are_those_of_the_levels(codec: SnacCodec) -> None:
    vectors = codec.code_vectors()
    assert vectors.shape == (7, 32, 4)
    for row, level in zip(vectors, [0, 1, 1, 2, 2, 2, 2], strict=True):
        assert row.equal(codec.model.quantizer.quantizers[level].codebook.weight)


def test_loads_from_a_published_folder(codec: SnacCodec, folder: Path, tmp_path: Path) -> None:
    card = read_card(folder)
    assert (card.spec.hop_length, card.spec.n_codebooks) == (HOP, 7)
    loaded = load_codec(folder)
    assert isinstance(loaded, SnacCodec)
    assert (loaded.spec.name, loaded.spec.library) == ("mine", "snac")
    assert loaded.spec.weight_hash == codec.spec.weight_hash
    waveform = tone(3000)
    codes = codec.encode(waveform)
    assert loaded.encode(waveform).equal(codes)
    assert loaded.decode(codes).equal(codec.decode(codes))
    loaded.save_pretrained(tmp_path / "saved")
    again = load_codec(tmp_path / "saved")
    assert again.spec.weight_hash == codec.spec.weight_hash
    assert again.config_of(again.model) == codec.config_of(codec.model)
    assert again.decode(codes).equal(codec.decode(codes))


def test_what_does_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    state = torch.load(folder / CHECKPOINT, weights_only=True)
    name = next(iter(state))
    torch.save({k: v for k, v in state.items() if k != name}, folder / CHECKPOINT)
    with pytest.raises(ValueError, match=r"weights do not fit config\.json"):
        load_codec(folder)
    torch.save(state | {name: torch.full_like(state[name], torch.nan)}, folder / CHECKPOINT)
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        load_codec(folder)
    torch.save({"model": Path("x")}, folder / CHECKPOINT)
    with pytest.raises(ValueError, match="can run code"):
        load_codec(folder)
    (folder / CHECKPOINT).unlink()
    with pytest.raises(FileNotFoundError, match="hf download hubertsiuzdak/snac_24khz"):
        load_codec(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vq_strides": [4, 3, 1]}, "a stride that every other stride divides"),
        ({"encoder_dim": "8"}, "encoder_dim = '8' is not of type int"),
        ({"codebook_size": 1 << 40}, "codebook_size = "),
    ],
)
def test_wrong_settings_are_refused(
    folder: Path, settings: dict[str, object], message: str
) -> None:
    (folder / "config.json").write_text(json.dumps(SNAC | settings))
    with pytest.raises(ValueError, match=message):
        SnacCodec.from_pretrained(folder)


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "snac", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'tokgen\[snac\]'"):
        make_model(SNAC)


@pytest.mark.parametrize(
    ("rates", "strides", "sample_rate", "numbers"),
    [
        ([2, 4, 8, 8], [4, 2, 1], 24000, (2048, 7)),
        ([2, 3, 8, 8], [8, 4, 2, 1], 32000, (3072, 15)),
    ],
)
def test_numbers_of_published_configs(
    rates: list[int], strides: list[int], sample_rate: int, numbers: tuple[int, int]
) -> None:
    config = {
        "sampling_rate": sample_rate,
        "encoder_rates": rates,
        "decoder_rates": rates[::-1],
        "vq_strides": strides,
        "codebook_size": 4096,
    }
    with pytest.raises(ValueError, match="decoder_rates of 8; they must agree"):
        SnacCodec.numbers(config | {"decoder_rates": [8]})
    found = SnacCodec.numbers(config)
    assert (found["hop_length"], found["n_codebooks"]) == numbers
