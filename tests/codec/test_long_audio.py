"""Blocks and files give the codes and audio that the whole waveform gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from makers.audio import codec_tone, cut, make_tone
from makers.codecs import BLOCKWISE, DAC_STRIDES, MAKERS, assert_same, make_encodec
from tokgen.audio.files import read_audio, write_audio
from tokgen.codec import long_audio
from tokgen.codec.base import Codec
from tokgen.codec.checks import WholeOnly
from tokgen.codec.long_audio import (
    decode_audio_file,
    decode_blocks,
    encode_audio_file,
    encode_blocks,
)
from tokgen.codec.stable import tally
from tokgen.codec.stable.settings import StableDecoding
from tokgen.codec.streaming import CodecStream
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.stft import StftCodec


@pytest.fixture(scope="module", params=sorted(BLOCKWISE))
def codec(request: pytest.FixtureRequest) -> Codec:
    return BLOCKWISE[request.param]()


@pytest.mark.parametrize("sizes", [[50000], [3001, 1, 0, 7777]])
@pytest.mark.parametrize("window_frames", [None, 77])
def test_blocks_give_the_codes_and_audio_of_the_whole(
    codec: Codec, sizes: list[int], window_frames: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal to the bit, with windows shorter than the audio and with the default ones."""
    if window_frames is not None:
        monkeypatch.setattr(codec, "window_frames", window_frames)
        monkeypatch.setattr(codec, "whole_frames", 0, raising=False)
    waveform = codec_tone(codec, seconds=4.567)
    expected = codec.encode_with_side(waveform)
    found = encode_blocks(codec, cut(waveform, sizes))
    assert_same(found, expected)
    n_samples = waveform.shape[-1]
    decoded = codec.decode(found.codes, n_samples, found.side)
    parts = list(decode_blocks(codec, found.codes, n_samples, found.side))
    assert torch.equal(torch.cat(parts, dim=-1), decoded)
    full = list(decode_blocks(codec, found.codes, side=found.side, mono=False))
    assert torch.equal(
        torch.cat(full, dim=-1), codec.decode(found.codes, side=found.side, mono=False)
    )


def test_windows_do_not_change_the_codes(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """The codes of 20 s in blocks equal those of the network run on all of it at once."""
    if not hasattr(codec, "window_frames"):
        return
    waveform = codec_tone(codec, seconds=20)
    monkeypatch.setattr(codec, "window_frames", 10**6)
    monkeypatch.setattr(codec, "whole_frames", 0, raising=False)
    whole = codec.encode_with_side(waveform)
    audio = codec.decode(whole.codes, side=whole.side)
    monkeypatch.setattr(codec, "window_frames", 300)
    found = encode_blocks(codec, cut(waveform, [9999]))
    assert_same(found, whole)
    decoded = torch.cat(list(decode_blocks(codec, found.codes, side=found.side)), dim=-1)
    torch.testing.assert_close(decoded, audio, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "seconds"), [("speech-16k", 42), *((name, 30) for name in DAC_STRIDES)]
)
def test_several_default_windows_equal_one_window(name: str, seconds: float) -> None:
    codec = MAKERS[name]() if name in MAKERS else load_codec(name)
    waveform = codec_tone(codec, seconds=seconds)
    found = encode_blocks(codec, cut(waveform, [100_003]))
    assert torch.equal(found.codes, codec.encode(waveform))
    decoded = torch.cat(list(decode_blocks(codec, found.codes, waveform.shape[-1])), dim=-1)
    assert torch.equal(decoded, codec.decode(found.codes, waveform.shape[-1]))
    codec.window_frames = 10**6  # type: ignore[attr-defined]
    assert torch.equal(found.codes, codec.encode(waveform))
    whole = codec.decode(found.codes, waveform.shape[-1])
    torch.testing.assert_close(decoded, whole, atol=1e-5, rtol=0)


def test_blocks_with_fewer_levels_and_several_channels(codec: Codec) -> None:
    waveform = codec_tone(codec, seconds=0.7).expand(-1, codec.spec.channels, -1)
    found = encode_blocks(codec, cut(waveform, [800]), 2)
    assert_same(found, codec.encode_with_side(waveform, 2))
    with pytest.raises(ValueError, match="n_codebooks = 99"):
        encode_blocks(codec, [waveform], 99)


def test_one_sample(codec: Codec) -> None:
    waveform = codec_tone(codec, seconds=1)[..., :1]
    found = encode_blocks(codec, [waveform[0]])
    assert_same(found, codec.encode_with_side(waveform))
    (audio,) = decode_blocks(codec, found.codes, 1, found.side)
    assert torch.equal(audio, codec.decode(found.codes, 1, found.side))


def test_memory_holds_one_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the network's input nor the kept samples grow with the audio."""
    codec = BLOCKWISE["stft"]()
    codec.window_frames = 100
    encoder = codec.block_encoder()
    run, lengths = encoder.stages[0].run, []
    monkeypatch.setattr(
        encoder.stages[0], "run", lambda x, first: (lengths.append(x.shape[-1]), run(x, first))[1]
    )
    with torch.no_grad():
        for _ in range(40):
            list(encoder.push(codec_tone(codec, seconds=1)))
            tail = encoder.stages[0]._tail
            assert tail.end - tail.begin <= 320 * 230  # of 2000 frames in all
    assert max(lengths) <= 320 * 120


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "0 samples in all blocks"),
        ([torch.zeros(1, 0)], "0 samples in all blocks"),
        ([torch.zeros(2, 1, 50)], "expected one item"),
        ([torch.zeros(1, 3, 50)], "expected mono"),
        ([torch.zeros(1, 50), torch.full((1, 50), torch.nan)], "NaN"),
    ],
)
@pytest.mark.parametrize("name", ["stft", "mimi"])
def test_unusable_blocks_are_refused(name: str, given: list[Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode_blocks((BLOCKWISE | MAKERS)[name](), given)


def test_codes_of_several_items_or_a_wrong_length_are_refused(codec: Codec) -> None:
    encoded = codec.encode_with_side(codec_tone(codec, seconds=0.1))
    with pytest.raises(ValueError, match="2 items: decode_blocks takes one"):
        decode_blocks(codec, encoded.codes.expand(2, -1, -1), 10)
    with pytest.raises(ValueError, match=r"n_samples = 1000000"):
        decode_blocks(codec, encoded.codes, 10**6, encoded.side)


@pytest.mark.parametrize("name", sorted(set(MAKERS) - set(BLOCKWISE)))
def test_codecs_that_need_the_whole_get_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = MAKERS[name]()
    waveform = codec_tone(codec, seconds=1.5)
    found = encode_blocks(codec, cut(waveform, [999]))
    assert_same(found, codec.encode_with_side(waveform))
    parts = list(decode_blocks(codec, found.codes, 7777, found.side))
    assert torch.equal(torch.cat(parts, dim=-1), codec.decode(found.codes, 7777, found.side))
    with pytest.raises(WholeOnly, match=f"{codec.spec.name} .*, so it cannot code audio piece"):
        CodecStream(codec)
    monkeypatch.setattr(long_audio, "WHOLE_SECONDS", 1.2)
    with pytest.raises(ValueError, match=r"more than 0\.02 minutes, and .* cut the audio"):
        encode_blocks(codec, cut(waveform, [999]))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"normalize": True}, "the audio"), ({"norm_type": "time_group_norm"}, "its layers")],
)
def test_encodec_that_normalises_the_whole_is_not_cut(settings: dict, reason: str) -> None:
    codec = make_encodec("encodec-24k", use_causal_conv=False, **settings)
    with pytest.raises(WholeOnly, match=f"normalises {reason} over all of an utterance"):
        CodecStream(codec)
    waveform = codec_tone(codec, seconds=0.5)
    assert_same(encode_blocks(codec, cut(waveform, [99])), codec.encode_with_side(waveform))


@pytest.mark.parametrize("name", ["stft", "encodec-48k"])
def test_files_give_the_codes_and_audio_of_their_waveform(name: str, tmp_path: Path) -> None:
    codec, source = BLOCKWISE[name](), tmp_path / "a.flac"
    write_audio(source, make_tone(3.21, 0, 44100), 44100)
    rate = codec.spec.sample_rate
    waveform, _ = read_audio(source, sample_rate=rate)
    encoded, n_samples, _ = encode_audio_file(codec, source, 3)
    assert n_samples == waveform.shape[-1]
    assert_same(encoded, codec.encode_with_side(waveform[None], 3))
    decoded = codec.decode(encoded.codes, n_samples, encoded.side)[0]
    expected = write_audio(tmp_path / "whole.wav", decoded, rate)
    found = decode_audio_file(
        codec, encoded.codes, n_samples, tmp_path / "blocks.wav", encoded.side
    )
    assert found == (expected, None)
    assert (tmp_path / "blocks.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()


def test_stable_files_hold_the_stable_audio(
    tiny_codec: StftCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = make_tone(1.6, seed=3)[None]
    codes = tiny_codec.encode(audio)
    settings = StableDecoding(window_seconds=0.5, robust_to=("int16", "dither"))
    waveform, whole = tiny_codec.decode(codes, audio.shape[-1], stable=settings)
    monkeypatch.setattr(tally, "CHUNK_SECONDS", 0.4)
    found = decode_audio_file(
        tiny_codec, codes, audio.shape[-1], tmp_path / "a.wav", stable=settings
    )
    assert found.n_clipped == 0 and found.reached is not None
    again, _ = read_audio(tmp_path / "a.wav")
    assert torch.equal(again, waveform[0])
    assert found.reached.kept.item() == whole.kept.item() == 1
    assert found.reached.steps.item() == pytest.approx(whole.steps.item())
    assert found.reached.snr_db.item() == pytest.approx(whole.snr_db.item())
    assert found.reached.survived["int16"].item() == 1
    assert found.reached.survived["dither"].item() > 0.9


def test_stable_files_report_codes_that_do_not_come_back(
    tiny_codec: StftCodec, tmp_path: Path
) -> None:
    codes = torch.randint(60, (1, 4, 40), generator=torch.Generator().manual_seed(0))
    settings = StableDecoding(steps=2, repairs=0)
    found = decode_audio_file(tiny_codec, codes, 12800, tmp_path / "a.flac", stable=settings)
    again = tiny_codec.encode(read_audio(tmp_path / "a.flac")[0][None])
    assert found.reached is not None
    assert found.reached.kept.item() == (again == codes).double().mean().item() < 1
