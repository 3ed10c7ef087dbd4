"""Blocks give what whole files give, and streams say truly how late they are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from makers.audio import make_tone
from makers.codecs import MAKERS, STRIDES, make_encodec, make_stft_codec
from tokgen.audio.files import read_audio, write_audio
from tokgen.codec import streaming
from tokgen.codec.base import Codec
from tokgen.codec.checks import WholeOnly
from tokgen.codec.long_audio import decode_blocks, decode_file, encode_blocks, encode_file
from tokgen.codec.spec import Encoded
from tokgen.codec.streaming import CodecStream, StreamDecoder, StreamEncoder
from tokgen.zoo.lookup import load_codec


def make(name: str) -> Codec:
    if name == "stft":
        return make_stft_codec(kernel_size=7, encoder_depth=2, decoder_depth=2)
    if name == "encodec-centred":
        return make_encodec("encodec-24k", use_causal_conv=False)
    return MAKERS[name]()


PIECEWISE = ["stft", "dac-even", "dac-odd", "encodec-24k", "encodec-centred", "encodec-48k"]
WHOLE = sorted(set(MAKERS) - set(PIECEWISE))


@pytest.fixture(scope="module", params=PIECEWISE)
def codec(request: pytest.FixtureRequest) -> Codec:
    return make(request.param)


def tone(codec: Codec, seconds: float) -> Tensor:
    """[1, 1, N]"""
    return make_tone(seconds, 0, codec.spec.sample_rate)[None]


def blocks(waveform: Tensor, sizes: list[int]) -> Iterator[Tensor]:
    """`waveform` in blocks of the sizes given, again and again."""
    start = 0
    for size in cycle(sizes):
        if start >= waveform.shape[-1]:
            return
        yield waveform[..., start : start + size]
        start += size


def join(parts: list[Encoded]) -> Encoded:
    names = parts[0].side
    side = {name: torch.cat([part.side[name] for part in parts], dim=-1) for name in names}
    return Encoded(torch.cat([part.codes for part in parts], dim=-1), side)


def assert_same(found: Encoded, expected: Encoded) -> None:
    assert torch.equal(found.codes, expected.codes) and found.codes.dtype == torch.int64
    assert set(found.side) == set(expected.side)
    for name, values in expected.side.items():
        assert torch.equal(found.side[name], values)


# -- long audio ----------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[50000], [3001, 1, 0, 7777]])
@pytest.mark.parametrize("window_frames", [None, 77])
def test_blocks_are_coded_as_the_whole_is(
    codec: Codec, sizes: list[int], window_frames: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, audio too, over windows that end within the audio and one that does not."""
    if window_frames is not None:
        monkeypatch.setattr(codec, "window_frames", window_frames)
        monkeypatch.setattr(codec, "whole_frames", 0, raising=False)
    waveform = tone(codec, 4.567)
    expected = codec.encode_with_side(waveform)
    found = encode_blocks(codec, blocks(waveform, sizes))
    assert_same(found, expected)
    n_samples = waveform.shape[-1]
    decoded = codec.decode(found.codes, n_samples, found.side)
    parts = list(decode_blocks(codec, found.codes, n_samples, found.side))
    assert torch.equal(torch.cat(parts, dim=-1), decoded)
    full = list(decode_blocks(codec, found.codes, side=found.side, mono=False))
    assert torch.equal(
        torch.cat(full, dim=-1), codec.decode(found.codes, side=found.side, mono=False)
    )


def test_windows_are_as_good_as_none(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes of 20 s in blocks are those of the network run on all of it at once."""
    if not hasattr(codec, "window_frames"):
        return
    waveform = tone(codec, 20)
    monkeypatch.setattr(codec, "window_frames", 10**6)
    monkeypatch.setattr(codec, "whole_frames", 0, raising=False)
    whole = codec.encode_with_side(waveform)
    audio = codec.decode(whole.codes, side=whole.side)
    monkeypatch.setattr(codec, "window_frames", 300)
    found = encode_blocks(codec, blocks(waveform, [9999]))
    assert_same(found, whole)
    decoded = torch.cat(list(decode_blocks(codec, found.codes, side=found.side)), dim=-1)
    torch.testing.assert_close(decoded, audio, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["speech-16k", *STRIDES])
def test_two_minutes_equal_the_network_on_all_of_it(name: str) -> None:
    codec = load_codec(name) if name not in MAKERS else make(name)
    waveform = tone(codec, 120)
    found = encode_blocks(codec, blocks(waveform, [100_003]))
    assert torch.equal(found.codes, codec.encode(waveform))
    decoded = torch.cat(list(decode_blocks(codec, found.codes, waveform.shape[-1])), dim=-1)
    assert torch.equal(decoded, codec.decode(found.codes, waveform.shape[-1]))
    codec.window_frames = 10**6  # type: ignore[attr-defined]
    assert torch.equal(found.codes, codec.encode(waveform))
    whole = codec.decode(found.codes, waveform.shape[-1])
    torch.testing.assert_close(decoded, whole, atol=1e-5, rtol=0)


def test_fewer_levels_and_stereo(codec: Codec) -> None:
    waveform = tone(codec, 0.7).expand(-1, codec.spec.channels, -1)
    found = encode_blocks(codec, blocks(waveform, [800]), 2)
    assert_same(found, codec.encode_with_side(waveform, 2))
    with pytest.raises(ValueError, match="n_codebooks = 99"):
        encode_blocks(codec, [waveform], 99)


def test_the_shortest_audio(codec: Codec) -> None:
    waveform = tone(codec, 1)[..., :1]
    found = encode_blocks(codec, [waveform[0]])
    assert_same(found, codec.encode_with_side(waveform))
    (audio,) = decode_blocks(codec, found.codes, 1, found.side)
    assert torch.equal(audio, codec.decode(found.codes, 1, found.side))


def test_memory_holds_one_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the network is given, and what is kept for later, stays as long as a window is."""
    codec = make("stft")
    codec.window_frames = 100
    encoder = codec.block_encoder()
    run, lengths = encoder.stages[0].run, []
    monkeypatch.setattr(
        encoder.stages[0], "run", lambda x, first: (lengths.append(x.shape[-1]), run(x, first))[1]
    )
    with torch.no_grad():
        for _ in range(40):
            list(encoder.push(tone(codec, 1)))
            tail = encoder.stages[0]._tail
            assert tail.end - tail.begin <= 320 * 230  # of 2000 frames in the end
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
        encode_blocks(make(name), given)


def test_codes_of_several_items_or_another_length_are_refused(codec: Codec) -> None:
    encoded = codec.encode_with_side(tone(codec, 0.1))
    with pytest.raises(ValueError, match="2 items: decode_blocks takes one"):
        decode_blocks(codec, encoded.codes.expand(2, -1, -1), 10)
    with pytest.raises(ValueError, match=r"n_samples = 1000000"):
        decode_blocks(codec, encoded.codes, 10**6, encoded.side)


@pytest.mark.parametrize("name", WHOLE)
def test_codecs_that_need_the_whole_get_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = make(name)
    waveform = tone(codec, 1.5)
    found = encode_blocks(codec, blocks(waveform, [999]))
    assert_same(found, codec.encode_with_side(waveform))
    parts = list(decode_blocks(codec, found.codes, 7777))
    assert torch.equal(torch.cat(parts, dim=-1), codec.decode(found.codes, 7777))
    with pytest.raises(WholeOnly, match=f"{codec.spec.name} .*, so it cannot code audio piece"):
        CodecStream(codec)
    monkeypatch.setattr(streaming, "WHOLE_SECONDS", 1.2)
    with pytest.raises(ValueError, match=r"more than 0\.02 minutes, and .* cut the audio"):
        encode_blocks(codec, blocks(waveform, [999]))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"normalize": True}, "the audio"), ({"norm_type": "time_group_norm"}, "its layers")],
)
def test_encodec_that_hears_everything_at_once(settings: dict, reason: str) -> None:
    codec = make_encodec("encodec-24k", use_causal_conv=False, **settings)
    with pytest.raises(WholeOnly, match=f"normalises {reason} over all of an utterance"):
        CodecStream(codec)
    waveform = tone(codec, 0.5)
    assert_same(encode_blocks(codec, blocks(waveform, [99])), codec.encode_with_side(waveform))


# -- files ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stft", "encodec-48k"])
def test_files_are_coded_as_what_they_hold(name: str, tmp_path: Path) -> None:
    codec, source = make(name), tmp_path / "a.flac"
    write_audio(source, make_tone(3.21, 0, 44100), 44100)
    rate = codec.spec.sample_rate
    waveform, _ = read_audio(source, sample_rate=rate)
    encoded, n_samples = encode_file(codec, source, 3)
    assert n_samples == waveform.shape[-1]
    assert_same(encoded, codec.encode_with_side(waveform[None], 3))
    decoded = codec.decode(encoded.codes, n_samples, encoded.side)[0]
    expected = write_audio(tmp_path / "whole.wav", decoded, rate)
    found = decode_file(codec, encoded.codes, n_samples, tmp_path / "blocks.wav", encoded.side)
    assert found == expected
    assert (tmp_path / "blocks.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()


# -- live audio ----------------------------------------------------------------


@pytest.mark.parametrize(("sizes", "step"), [([160], 1), ([1001, 1, 334], 3), ([40000], 1)])
def test_a_stream_gives_the_codes_of_the_whole(codec: Codec, sizes: list[int], step: int) -> None:
    waveform = tone(codec, 2.34)
    expected = codec.encode_with_side(waveform)
    audio = codec.decode(expected.codes, waveform.shape[-1], expected.side)
    encoder, stream = StreamEncoder(codec, step=step), CodecStream(codec, step=step)
    parts, heard = [], []
    for block in blocks(waveform, sizes):
        parts.append(encoder.push(block))
        heard.append(stream.push(block))
    assert_same(join([*parts, encoder.finish()]), expected)
    found = torch.cat([*heard, stream.finish()], dim=-1)
    torch.testing.assert_close(found, audio, atol=1e-6, rtol=0)


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize("size", [1, 23])
def test_latency_is_exact(codec: Codec, step: int, size: int) -> None:
    """Sample s is out once s + latency are in, and for some s not one earlier."""
    stream, n_in, n_out, lags = CodecStream(codec, step=step), 0, 0, []
    waveform = tone(codec, 1)
    n_samples = stream.start_samples + 9 * codec.spec.hop_length
    skipped = stream.start_samples - 2 * size  # in one block: nothing may come out
    assert stream.push(torch.zeros(1, 1, skipped)).shape[-1] == 0
    n_in = skipped
    while n_in < n_samples:
        new = stream.push(waveform[..., :size]).shape[-1]
        if new:
            assert n_in + size >= stream.start_samples
        if n_out and new:  # the first of them has waited longest
            lags.append(n_in + size - n_out)
        n_in, n_out = n_in + size, n_out + new
        if n_in >= stream.start_samples:
            assert n_in - n_out < stream.latency_samples
    assert n_out > 0
    if lags:
        assert stream.latency_samples <= max(lags) < stream.latency_samples + size
    assert stream.latency_seconds == stream.latency_samples / codec.spec.sample_rate


@pytest.mark.parametrize(
    ("name", "latency", "start"),
    [
        ("stft", 15 * 320, 15 * 320),  # 2 x 3 + 1 frames ahead; 2 x 3 + 1 + 1; and the frame
        ("dac-even", 21 * 64, 21 * 64),
        ("encodec-24k", 40, 7 * 40),  # causal; its start is mirrored by kernels of 7 frames
        ("encodec-48k", 8000, 8000),  # a chunk
    ],
)
def test_latency_of_each_kind(name: str, latency: int, start: int) -> None:
    stream = CodecStream(make(name))
    assert (stream.latency_samples, stream.start_samples) == (latency, start)


def test_what_is_out_does_not_depend_on_what_comes(codec: Codec) -> None:
    """The same beginning, then silence or noise: the same audio up to the latency."""
    beginning = tone(codec, 1.5)
    noise = torch.randn(beginning.shape, generator=torch.Generator().manual_seed(0))
    heard = []
    for rest in (torch.zeros_like(beginning), noise.clamp(-1, 1)):
        stream = CodecStream(codec)
        heard.append(stream.push(beginning))
        both = torch.cat([beginning, rest], dim=-1)
        encoded = codec.encode_with_side(both)
        whole = codec.decode(encoded.codes, both.shape[-1], encoded.side)
        n_out = heard[-1].shape[-1]
        torch.testing.assert_close(heard[-1], whole[..., :n_out], atol=1e-6, rtol=0)
    assert torch.equal(*heard) and heard[0].shape[-1] > 0


def test_halves_on_two_sides_of_a_line(codec: Codec) -> None:
    """A sender's codes, pushed frame by frame into a receiver, with fewer levels."""
    waveform = tone(codec, 1.2)
    expected = codec.encode_with_side(waveform, 2)
    sender, receiver = StreamEncoder(codec, 2), StreamDecoder(codec)
    sent = [sender.push(waveform), sender.finish()]
    heard = [receiver.push(part) for part in sent]
    found = torch.cat([*heard, receiver.finish()], dim=-1)
    assert_same(join(sent), expected)
    torch.testing.assert_close(
        found, codec.decode(expected.codes, side=expected.side), atol=1e-6, rtol=0
    )


def test_streams_end_once_and_say_what_is_wrong(codec: Codec) -> None:
    stream = CodecStream(codec)
    assert stream.push(torch.zeros(1, 1, 0)).shape == (1, 1, 0)
    assert stream.finish().shape == (1, 1, 0)
    with pytest.raises(ValueError, match="the stream has ended"):
        stream.push(torch.zeros(1, 1, 10))
    with pytest.raises(ValueError, match="step = 0"):
        CodecStream(codec, step=0)
    with pytest.raises(ValueError, match="MASK token"):
        wrong = torch.full((1, 1, 3), codec.spec.codebook_size)
        StreamDecoder(codec).push(Encoded(wrong))
