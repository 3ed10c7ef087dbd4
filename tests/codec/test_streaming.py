"""Streams give the audio of the whole waveform, and state their latency exactly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from makers.audio import codec_tone, cut
from makers.codecs import BLOCKWISE, assert_same
from tokgen.codec.base import Codec
from tokgen.codec.spec import Encoded
from tokgen.codec.streaming import CodecStream, StreamDecoder, StreamEncoder


@pytest.fixture(scope="module", params=sorted(BLOCKWISE))
def codec(request: pytest.FixtureRequest) -> Codec:
    return BLOCKWISE[request.param]()


def join(parts: list[Encoded]) -> Encoded:
    names = parts[0].side
    side = {name: torch.cat([part.side[name] for part in parts], dim=-1) for name in names}
    return Encoded(torch.cat([part.codes for part in parts], dim=-1), side)


@pytest.mark.parametrize(("sizes", "step"), [([160], 1), ([1001, 1, 334], 3), ([40000], 1)])
def test_a_stream_gives_the_codes_and_audio_of_the_whole(
    codec: Codec, sizes: list[int], step: int
) -> None:
    n_samples = max(100 * codec.spec.hop_length, round(1.3 * codec.spec.sample_rate))
    waveform = codec_tone(codec, n_samples)
    expected = codec.encode_with_side(waveform)
    audio = codec.decode(expected.codes, n_samples, expected.side)
    encoder, stream = StreamEncoder(codec, step=step), CodecStream(codec, step=step)
    parts, heard = [], []
    for block in cut(waveform, sizes):
        parts.append(encoder.push(block))
        heard.append(stream.push(block))
    assert_same(join([*parts, encoder.finish()]), expected)
    found = torch.cat([*heard, stream.finish()], dim=-1)
    torch.testing.assert_close(found, audio, atol=1e-6, rtol=0)


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize("size", [1, 23])
def test_latency_is_exact(codec: Codec, step: int, size: int) -> None:
    """Sample s is available once s + latency are in, and for some s not one earlier."""
    stream, n_in, n_out, lags = CodecStream(codec, step=step), 0, 0, []
    waveform = codec_tone(codec, seconds=1)
    n_samples = stream.start_samples + 9 * codec.spec.hop_length
    skipped = stream.start_samples - 2 * size  # too few for any output
    assert stream.push(torch.zeros(1, 1, skipped)).shape[-1] == 0
    n_in = skipped
    while n_in < n_samples:
        new = stream.push(waveform[..., :size]).shape[-1]
        if new:
            assert n_in + size >= stream.start_samples
        if n_out and new:  # the first of them waited longest
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
        ("stft", 15 * 320, 15 * 320),  # look-ahead of 7 and 7 frames, and the frame
        ("dac-even", 21 * 64, 21 * 64),
        ("encodec-24k", 40, 7 * 40),  # causal; reflect padding needs 7 frames first
        ("encodec-48k", 8000, 8000),  # a chunk
        ("stft-causal", 640 + 320, 640 + 160),  # a window, and one frame of look-ahead
    ],
)
def test_latency_of_each_kind(name: str, latency: int, start: int) -> None:
    stream = CodecStream(BLOCKWISE[name]())
    assert (stream.latency_samples, stream.start_samples) == (latency, start)


def test_output_does_not_depend_on_later_input(codec: Codec) -> None:
    """Silence or noise after the same beginning gives the same audio up to the latency."""
    beginning = codec_tone(codec, seconds=1.5)
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


def test_encoder_and_decoder_apart(codec: Codec) -> None:
    """A sender's codes of fewer levels, pushed into a receiver."""
    waveform = codec_tone(codec, seconds=1.2)
    expected = codec.encode_with_side(waveform, 2)
    sender, receiver = StreamEncoder(codec, 2), StreamDecoder(codec)
    sent = [sender.push(waveform), sender.finish()]
    heard = [receiver.push(part) for part in sent]
    found = torch.cat([*heard, receiver.finish()], dim=-1)
    assert_same(join(sent), expected)
    torch.testing.assert_close(
        found, codec.decode(expected.codes, side=expected.side), atol=1e-6, rtol=0
    )


def test_unusable_pushes_are_refused(codec: Codec) -> None:
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


def test_codes_that_do_not_go_on_are_refused(codec: Codec) -> None:
    """The stream goes on after what it refused."""
    encoded = codec.encode_with_side(codec_tone(codec, seconds=2))
    decoder, whole = StreamDecoder(codec), StreamDecoder(codec)
    expected = torch.cat([whole.push(encoded), whole.finish()], dim=-1)
    with pytest.raises(ValueError, match=r"codes of 2 items: .* make a stream for each"):
        decoder.push(Encoded(encoded.codes.repeat(2, 1, 1), encoded.side))
    with pytest.raises(TypeError, match="codes are a list, not a tensor"):
        decoder.push(Encoded([[[1]]]))  # type: ignore[arg-type]
    heard = [decoder.push(encoded)]
    levels = codec.spec.n_codebooks
    with pytest.raises(ValueError, match=rf"codes of 1 levels after {levels}: .* the same"):
        decoder.push(Encoded(encoded.codes[:, :1], encoded.side))
    heard.append(decoder.finish())
    assert torch.cat(heard, dim=-1).equal(expected)


def test_a_stream_goes_on_after_a_block_that_it_refuses(codec: Codec) -> None:
    waveform = codec_tone(codec, seconds=1.2)
    stream, whole = CodecStream(codec), CodecStream(codec)
    heard = []
    for block in waveform.split(waveform.shape[-1] // 3, dim=-1):
        heard.append(stream.push(block))
        with pytest.raises(ValueError, match="NaN or infinity"):
            stream.push(torch.full((1, 1, 5), torch.nan))
        with pytest.raises(ValueError, match=r"block of shape \(2, 1, 5\): expected one item"):
            stream.push(torch.zeros(2, 1, 5))
    found = torch.cat([*heard, stream.finish()], dim=-1)
    assert found.shape == waveform.shape
    torch.testing.assert_close(
        found, torch.cat([whole.push(waveform), whole.finish()], dim=-1), atol=1e-6, rtol=0
    )


def test_an_error_in_the_network_ends_a_stream(
    codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was lost with it would otherwise leave a gap, and a cache with a frame too many."""
    waveform = codec_tone(codec, seconds=2)
    encoded = codec.encode_with_side(waveform)

    def fail(*_: object) -> Tensor:
        raise MemoryError

    encoder, decoder = StreamEncoder(codec), StreamDecoder(codec)
    for half in (encoder, decoder):
        monkeypatch.setattr(half._coder.stages[0], "run", fail)
    with pytest.raises(MemoryError):
        encoder.push(waveform)
    with pytest.raises(MemoryError):
        decoder.push(encoded)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"ended, by `finish` or by an error: .* codec\.stream"):
        encoder.push(waveform)
    with pytest.raises(ValueError, match="the stream has ended"):
        decoder.push(encoded)
    with pytest.raises(ValueError, match="the stream has ended"):
        decoder.finish()


def test_a_buffer_that_is_filled_again_changes_nothing(codec: Codec) -> None:
    """Sound cards and sockets write every block into the same memory."""
    waveform = codec_tone(codec, seconds=1.3)
    stream, whole = CodecStream(codec), CodecStream(codec)
    encoded = codec.encode_with_side(waveform)
    size, heard = codec.spec.hop_length * 3 // 2, []
    buffer = torch.empty(1, 1, size)
    for block in waveform.split(size, dim=-1):
        part = buffer[..., : block.shape[-1]].copy_(block)
        heard.append(stream.push(part))
        buffer.fill_(0.5)
    found = torch.cat([*heard, stream.finish()], dim=-1)
    expected = torch.cat([whole.push(waveform), whole.finish()], dim=-1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)

    decoder, whole_decoder = StreamDecoder(codec), StreamDecoder(codec)
    codes, side = encoded.codes.clone(), {k: v.clone() for k, v in encoded.side.items()}
    heard = [decoder.push(Encoded(codes, side))]
    codes.zero_()
    for values in side.values():
        values.zero_()
    found = torch.cat([*heard, decoder.finish()], dim=-1)
    assert found.equal(torch.cat([whole_decoder.push(encoded), whole_decoder.finish()], dim=-1))
