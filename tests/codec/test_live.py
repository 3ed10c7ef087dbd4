"""`codec.stream()` gives the same bits for blocks of any sizes, and as the whole file."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from makers.audio import codec_tone
from makers.codecs import MAKERS, make_causal, make_stft_codec
from tokgen.codec.base import Codec
from tokgen.codec.checks import NotCausal
from tokgen.codec.long_audio import encode_blocks
from tokgen.codec.piecewise import LiveCodec
from tokgen.codec.spec import Encoded, join

LIVE = {"stft-causal", "encodec-24k", "mimi"}
EXACT = {"stft-causal"}  # whose whole files go through the same steps


@pytest.fixture(scope="module", params=sorted(LIVE & set(MAKERS)))
def codec(request: pytest.FixtureRequest) -> Codec:
    return MAKERS[request.param]()


def random_blocks(x: Tensor, seed: int, largest: int) -> Iterator[Tensor]:
    """Cut [..., N] into pieces of random sizes, on a log scale, some of them 0."""
    rng, start = random.Random(seed), 0
    while start < x.shape[-1]:
        size = round(largest ** rng.random()) - 1
        yield x[..., start : start + size]
        start += size


def through(codec: Codec, blocks: Iterator[Tensor]) -> tuple[Encoded, Tensor]:
    """Return the codes and the audio of a stream, from its halves."""
    stream = codec.stream()
    sent = [stream.encoder.push(block) for block in blocks]
    sent.append(stream.encoder.finish())
    heard = [stream.decoder.push(part) for part in sent]
    heard.append(stream.decoder.finish())
    return join(sent), torch.cat(heard, dim=-1)


@pytest.mark.parametrize("seed", range(3))
def test_random_blocks_give_what_the_whole_gives(codec: Codec, seed: int) -> None:
    n_samples = [50, 45, 3][seed] * codec.spec.hop_length + [0, 77, 1][seed]
    waveform = codec_tone(codec, n_samples, seed)
    codes = codec.encode(waveform)
    audio = codec.decode(codes)
    once, heard_once = through(codec, iter([waveform]))
    parts, heard = through(codec, random_blocks(waveform, seed, 5 * codec.spec.hop_length))
    assert parts.codes.equal(codes) and once.codes.equal(codes)
    assert heard.equal(heard_once)
    if codec.spec.name in EXACT:
        assert heard.equal(audio)
    torch.testing.assert_close(heard, audio, atol=3e-6 * float(audio.abs().max()), rtol=0)


def test_a_round_trip_in_random_blocks(codec: Codec) -> None:
    waveform = codec_tone(codec, 40 * codec.spec.hop_length + 5)
    stream, whole = codec.stream(), codec.stream()
    blocks = random_blocks(waveform, 7, 3 * codec.spec.hop_length)
    found = torch.cat([*[stream.push(block) for block in blocks], stream.finish()], dim=-1)
    assert found.shape == waveform.shape
    assert found.equal(torch.cat([whole.push(waveform), whole.finish()], dim=-1))


def test_threads_change_nothing(codec: Codec) -> None:
    waveform = codec_tone(codec, 20 * codec.spec.hop_length)
    codes, heard = through(codec, iter([waveform]))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        again, heard_again = through(codec, random_blocks(waveform, 1, 999))
    finally:
        torch.set_num_threads(before)
    assert again.codes.equal(codes.codes) and heard_again.equal(heard)


def test_the_latency_is_that_of_the_spec(codec: Codec) -> None:
    stream, spec = codec.stream(), codec.spec
    assert stream.latency_samples == spec.latency_samples
    waveform, n_out, lags = codec_tone(codec, 30 * spec.hop_length), 0, []
    for n_in in range(1, waveform.shape[-1] + 1, 1 if spec.hop_length < 100 else 16):
        step = 1 if spec.hop_length < 100 else 16
        new = stream.push(waveform[..., n_in - 1 : n_in - 1 + step]).shape[-1]
        if new and n_in > stream.start_samples:
            lags.append(n_in - 1 + step - n_out)
        n_out += new
    assert max(lags) == spec.latency_samples


@pytest.mark.parametrize("lookahead", [0, 2])
@pytest.mark.parametrize(("hop_length", "ratio"), [(5, 2), (6, 3), (7, 4), (5, 5), (6, 8)])
def test_latency_of_windows_of_any_overlap(hop_length: int, ratio: int, lookahead: int) -> None:
    """Odd windows and hops too, and up to 8 windows at every sample."""
    n_fft = ratio * hop_length
    codec = make_causal(lookahead, hop_length=hop_length, n_fft=n_fft)
    waveform, heard, lag = codec_tone(codec, 45 * hop_length + 3), [], 0
    stream = codec.stream()
    for n_in in range(1, waveform.shape[-1] + 1):
        heard.append(stream.push(waveform[..., n_in - 1 : n_in]))
        n_out = sum(part.shape[-1] for part in heard)
        if heard[-1].shape[-1] and n_in > stream.start_samples:
            lag = max(lag, n_in - n_out + heard[-1].shape[-1])
    assert lag == stream.latency_samples == n_fft + lookahead * hop_length
    assert codec.spec.latency_samples == lag
    found = torch.cat([*heard, stream.finish()], dim=-1)
    assert found.equal(codec.decode(codec.encode(waveform), waveform.shape[-1]))


@pytest.mark.parametrize("n_samples", [1, 2])
def test_streams_shorter_than_a_frame(codec: Codec, n_samples: int) -> None:
    waveform = codec_tone(codec, n_samples)
    stream = codec.stream()
    assert stream.push(waveform).shape == (1, 1, 0)
    found, live = stream.finish(), codec.live()
    assert found.equal(live.decode(live.encode(waveform), n_samples))
    with pytest.raises(ValueError, match="the stream has ended"):
        stream.finish()
    assert codec.stream().finish().shape == (1, 1, 0)


def test_streams_at_once_are_apart(codec: Codec) -> None:
    hop = codec.spec.hop_length
    clips = [codec_tone(codec, 25 * hop + n, seed) for seed, n in enumerate((0, 9))]
    streams = [codec.stream() for _ in clips]
    heard: list[list[Tensor]] = [[] for _ in clips]
    for start in range(0, 26 * hop, 3 * hop - 1):
        for clip, stream, parts in zip(clips, streams, heard, strict=True):
            parts.append(stream.push(clip[..., start : start + 3 * hop - 1]))
    for clip, stream, parts in zip(clips, streams, heard, strict=True):
        alone = codec.stream()
        expected = torch.cat([alone.push(clip), alone.finish()], dim=-1)
        assert torch.cat([*parts, stream.finish()], dim=-1).equal(expected)


def test_streams_in_threads_are_apart(codec: Codec) -> None:
    clips = [codec_tone(codec, 20 * codec.spec.hop_length, seed) for seed in range(4)]

    def code(clip: Tensor) -> Tensor:
        return through(codec, random_blocks(clip, 1, 2 * codec.spec.hop_length))[1]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(code, clips))
    assert all(a.equal(code(clip)) for a, clip in zip(found, clips, strict=True))


def test_a_long_stream_keeps_no_more_than_a_short_one(codec: Codec) -> None:
    stream, block = codec.stream(), codec_tone(codec, codec.spec.hop_length)
    kept = []
    for n in range(1, 161):
        stream.push(block)
        if n % 80 == 0:  # whole chunks
            stages = *stream.encoder._coder.stages, *stream.decoder._coder.stages
            kept.append(sum(_numbers_in(vars(stage)) for stage in stages))
    assert kept[0] == kept[1] > 0


def _numbers_in(value: object) -> int:
    """Return the elements of all tensors in the state of a stage."""
    if isinstance(value, Tensor):
        return value.numel()
    if isinstance(value, dict):
        return sum(map(_numbers_in, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_numbers_in, value))
    kinds = ("Tail", "DynamicCache", "DynamicSlidingWindowLayer")
    return _numbers_in(vars(value)) if type(value).__name__ in kinds else 0


def test_some_levels_alone(codec: Codec) -> None:
    waveform = codec_tone(codec, 12 * codec.spec.hop_length)
    stream = codec.stream(2)
    sent = join([stream.encoder.push(waveform), stream.encoder.finish()])
    assert sent.codes.equal(codec.encode(waveform, 2))


def test_beam_search_in_a_stream() -> None:
    codec = make_causal().with_beam(3)
    waveform = codec_tone(codec, 9000)
    codes, _ = through(codec, random_blocks(waveform, 3, 2000))
    assert codes.codes.equal(codec.encode(waveform))
    assert not codes.codes.equal(make_causal().encode(waveform))


def test_a_live_codec_codes_whole_audio_as_its_streams_do(codec: Codec) -> None:
    waveform = codec_tone(codec, 30 * codec.spec.hop_length + 9)
    live = codec.live()
    parts, heard = through(codec, random_blocks(waveform, 5, 4 * codec.spec.hop_length))
    encoded = live.encode_with_side(waveform)
    assert encoded.codes.equal(parts.codes)
    assert live.decode(encoded.codes).equal(heard)
    assert live.live() is live and live.spec == codec.spec
    batch = [waveform[0], waveform[0, :, : waveform.shape[-1] // 2]]
    short = codec.live().encode_batch(batch)[1]
    assert short.equal(live.encode(batch[1][None])[0])
    assert live.decode(encoded.codes.expand(2, -1, -1))[1:].equal(heard)


def test_a_live_codec_codes_files_and_levels_alike(codec: Codec) -> None:
    waveform = codec_tone(codec, 25 * codec.spec.hop_length + 9)
    live, blocks = codec.live(), random_blocks(waveform, 2, 999)
    found = encode_blocks(live, (block[0] for block in blocks))
    assert found.codes.equal(live.encode(waveform))
    # torch does not pickle EnCodec's weight norm
    again = copy.copy(live) if "encodec" in codec.spec.name else pickle.loads(pickle.dumps(live))
    assert again.encode(waveform, 2).equal(live.encode(waveform)[:, :2])
    assert isinstance(again, LiveCodec) and isinstance(again, type(codec))


@pytest.mark.parametrize("name", ["stft", *sorted(set(MAKERS) - LIVE)])
def test_codecs_that_look_ahead_are_refused(name: str) -> None:
    codec = make_stft_codec() if name == "stft" else MAKERS[name]()
    message = f"{codec.spec.name} is not causal, .* use a causal codec .*Mimi or EnCodec at 24 kHz"
    with pytest.raises(NotCausal, match=message):
        codec.stream()
    with pytest.raises(NotCausal):
        codec.live()
    assert codec.spec.latency_ms is None
