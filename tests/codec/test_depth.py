"""Variable depth: choosing it, its bits, and codecs that have it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from makers.audio import codec_tone
from makers.codecs import MAKERS, VARIABLE, assert_same, make_stft_codec, make_variable
from tokgen.codec.base import Codec
from tokgen.codec.depth import DepthCounts, Rate, depth_bits, depth_of, mean_kbps, stream_bits
from tokgen.codec.long_audio import decode_blocks, encode_blocks
from tokgen.codec.spec import CodecSpec, Encoded
from tokgen.codec.stable.decoding import check_searchable
from tokgen.codec.streaming import CodecStream
from tokgen.zoo.cards import describe_codec
from tokgen.zoo.lookup import load_codec

K = 4
SPEC = CodecSpec("x", 16000, 320, K, 1024)


@pytest.fixture(scope="module", params=VARIABLE)
def codec(request: pytest.FixtureRequest) -> Codec:
    """A codec of variable bitrate, with all levels."""
    return MAKERS[request.param](level=None)  # type: ignore[call-arg]


def importance_of(n_frames: int, seed: int = 0) -> Tensor:
    noise = torch.randn(n_frames, generator=torch.Generator().manual_seed(seed))
    return torch.sigmoid(2 * noise)


@given(st.lists(st.integers(1, K), min_size=1, max_size=60))
def test_bits_are_those_of_the_counts_one_by_one(depth: list[int]) -> None:
    counts, bits = DepthCounts(K), 0.0
    for value in depth:
        row = counts.row()
        bits += math.log2(row.sum() / row[value - 1])
        counts.update(value)
    assert depth_bits(torch.tensor(depth), K) == pytest.approx(bits)


def test_a_steady_depth_takes_few_bits() -> None:
    steady = torch.tensor([3] * 100 + [1] * 100)
    mixed = steady[torch.randperm(200, generator=torch.Generator().manual_seed(0))]
    assert depth_bits(steady, K) < 0.2 * 200 < depth_bits(mixed, K) < 1.2 * 200
    assert depth_bits(torch.ones(50), 1) == 0


def test_bits_count_the_live_codes_and_the_depth() -> None:
    depth = torch.tensor([1, 4, 2])
    assert stream_bits(3, 4, SPEC, depth) == 70 + depth_bits(depth, K)
    assert stream_bits(3, 2, SPEC, None) == 60
    assert mean_kbps(torch.full((50,), 4), SPEC) == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("kbps", [0.7, 1.0, 1.31, 1.9])
def test_a_requested_bitrate_is_met(kbps: float) -> None:
    found = [mean_kbps(Rate(bitrate=kbps).depth(importance_of(300, s), SPEC), SPEC) for s in (0, 1)]
    assert all(0.98 * kbps < x <= kbps for x in found)


def test_a_bitrate_with_fewer_levels() -> None:
    rate = Rate(bitrate=0.9, n_codebooks=2)
    depth = rate.depth(importance_of(300), SPEC)
    assert depth.max() == 2 and mean_kbps(depth, SPEC) == pytest.approx(0.9, rel=0.02)


def test_bitrates_out_of_reach_name_the_range() -> None:
    for kbps in (0.3, 3.0):
        with pytest.raises(ValueError, match=r"bitrate = .* kbps: x reaches 0\.5.* to 2.* kbps"):
            Rate(bitrate=kbps).depth(importance_of(300), SPEC)


@pytest.mark.parametrize("seed", range(4))
def test_the_range_that_is_named_is_in_reach(seed: int) -> None:
    importance = importance_of(20 + seed, seed)
    with pytest.raises(ValueError) as caught:
        Rate(bitrate=99.0).depth(importance, SPEC)
    words = str(caught.value).split()
    at = words.index("reaches")
    for kbps in (words[at + 1], words[at + 3]):
        assert mean_kbps(Rate(bitrate=float(kbps)).depth(importance, SPEC), SPEC) <= float(kbps)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "level = None and bitrate = None: give one"),
        ({"level": 1.0, "bitrate": 2.0}, "give one of them"),
        ({"level": 0.0}, r"level = 0.0: must be above 0"),
        ({"bitrate": math.nan}, "bitrate = nan: must be above 0 and finite"),
    ],
)
def test_wrong_rates_are_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rate(**given)


def test_levels_that_are_kept_are_those_of_the_constant_rate(codec: Codec) -> None:
    audio = codec_tone(codec, codec.spec.sample_rate)
    every, last = codec.encode(audio)[0], torch.zeros(())
    for level in (0.5, 1.0, 2.0):
        encoded = codec.encode_with_side(audio, level=level)
        depth = encoded.depth
        assert depth is not None and depth.min() >= 1 and len(depth.unique()) > 1
        live = torch.arange(codec.spec.n_codebooks)[:, None] < depth[0]
        assert torch.equal(encoded.codes[0], every * live)
        assert depth.float().mean() > last
        last = depth.float().mean()


def test_one_encoding_has_every_bitrate(codec: Codec) -> None:
    lengths = [codec.spec.sample_rate, 7000]
    clips = [codec_tone(codec, n, seed)[0] for seed, n in enumerate(lengths)]
    batch = torch.stack([F.pad(clip, (0, max(lengths) - clip.shape[-1])) for clip in clips])
    once = codec.encode_with_importance(batch, lengths)
    middle = 0.5 * codec.spec.bitrate / 1000
    for rate in ({"level": 0.6}, {"bitrate": middle}, {"level": 2.0, "n_codebooks": 2}):
        chosen = codec.allocate(once, lengths, **rate)
        n_codebooks = rate.pop("n_codebooks", None)
        direct = codec.encode_with_side(batch, n_codebooks, lengths, **rate)
        assert torch.equal(chosen.codes, direct.codes)
        assert torch.equal(chosen.side["depth"], direct.side["depth"])
        view = codec.with_rate(**rate)
        for one, clip, depth in zip(
            view.encode_batch_with_side(clips), clips, direct.side["depth"], strict=True
        ):
            n_frames = codec.spec.n_frames(clip.shape[-1])
            assert depth[n_frames:].eq(0).all()
            if n_codebooks is None:
                assert torch.equal(one.side["depth"], depth[:n_frames])


def test_decoding_leaves_out_the_levels_past_the_depth(codec: Codec) -> None:
    encoded = codec.encode_with_side(codec_tone(codec, 8000), level=0.6)
    shown = codec.decode(encoded.codes, side=encoded.side)
    other = encoded.codes.clone()
    past = torch.arange(codec.spec.n_codebooks)[:, None] >= encoded.side["depth"][:, None]
    other[past] = 5
    assert torch.equal(codec.decode(other, side=encoded.side), shown)
    rest = {name: values for name, values in encoded.side.items() if name != "depth"}
    assert not torch.equal(codec.decode(encoded.codes, side=rest), shown)
    two = rest | {"depth": torch.full_like(encoded.side["depth"], 2)}
    every = codec.encode(codec_tone(codec, 8000))
    heard = codec.decode(every, side=two)
    torch.testing.assert_close(heard, codec.decode(every[:, :2], side=rest))


def test_a_bitrate_in_blocks_is_that_of_the_whole(codec: Codec) -> None:
    view = codec.with_rate(bitrate=0.6 * codec.spec.bitrate / 1000)
    audio = codec_tone(codec, 3 * codec.spec.sample_rate)
    whole = view.encode_with_side(audio)
    blocks = encode_blocks(view, audio.split(1234, dim=-1))
    assert torch.equal(blocks.codes, whole.codes)
    assert torch.equal(blocks.side["depth"], whole.side["depth"])
    assert_same(encode_blocks(codec, [audio], bitrate=0.6 * codec.spec.bitrate / 1000), whole)
    grid = None if codec.spec.chunk_length else 3
    aligned = codec.encode_with_side(audio, 2, grid=grid, level=0.7)
    assert_same(encode_blocks(codec, audio.split(999, dim=-1), 2, grid=grid, level=0.7), aligned)
    with pytest.raises(ValueError, match=r"reaches .* on this audio with n_codebooks = 2; choose"):
        encode_blocks(codec, [audio], 2, bitrate=codec.spec.bitrate / 1000)
    heard = torch.cat(list(decode_blocks(codec, whole.codes, audio.shape[-1], whole.side)), -1)
    assert torch.equal(heard, codec.decode(whole.codes, audio.shape[-1], whole.side))
    with pytest.raises(ValueError, match=r"depends on the whole utterance.*choose a level"):
        CodecStream(view)


def test_a_stream_waits_for_the_context_of_the_importance(codec: Codec) -> None:
    plain, view = CodecStream(codec), CodecStream(codec.with_rate(level=0.7))
    more = (view.latency_samples - plain.latency_samples) / codec.spec.hop_length
    within = codec.spec.chunk_length > 0  # the importance of a chunk depends on no other
    assert more == (0 if within else codec.model.importance.reach)  # type: ignore[union-attr]


def test_a_bandwidth_of_a_variable_codec_is_a_mean(tmp_path) -> None:
    codec = make_variable(None)
    codec.save_pretrained(tmp_path / "vbr")
    kbps = 0.7 * codec.spec.bitrate / 1000
    loaded = load_codec(tmp_path / "vbr", bandwidth=kbps)
    assert loaded.rate == Rate(bitrate=kbps) and loaded.side_names == ("depth",)
    found = loaded.encode_with_side(codec_tone(codec, 32000))
    expected = codec.encode_with_side(codec_tone(codec, 32000), bitrate=kbps)
    assert torch.equal(found.codes, expected.codes)


def test_codecs_of_one_bitrate_say_so() -> None:
    codec, audio = make_stft_codec(), torch.zeros(1, 1, 3200)
    for call in (
        lambda: codec.encode(audio, level=1.0),
        lambda: codec.with_rate(bitrate=1.0),
        lambda: codec.encode_with_importance(audio),
    ):
        with pytest.raises(ValueError, match="tiny has no variable bitrate"):
            call()
    side = {"depth": torch.ones(1, 10)}
    with pytest.raises(ValueError, match="'depth': tiny has no variable bitrate"):
        codec.decode(codec.encode(audio), side=side)


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (torch.ones(1, 9), r"depth of shape \(1, 9\)"),
        (torch.full((1, 10), 5.0), r"depth spans 5\.\.5: .* whole numbers of 1\.\.4"),
        (torch.full((1, 10), 1.5), "whole numbers"),
    ],
)
def test_a_wrong_depth_is_refused(depth: Tensor, message: str) -> None:
    codec = make_variable(None)
    codes = codec.encode(torch.zeros(1, 1, 3200))
    with pytest.raises(ValueError, match=message):
        codec.decode(codes, side={"depth": depth})


def test_stable_decoding_needs_all_levels() -> None:
    codec = make_variable()
    encoded = codec.encode_with_side(codec_tone(codec, 3200))
    with pytest.raises(ValueError, match="variable depth is not supported"):
        codec.decode(encoded.codes, side=encoded.side, stable=True)
    with pytest.raises(ValueError, match=r"with a variable bitrate: .* without level and bitrate"):
        check_searchable(codec)
    check_searchable(make_variable(None))


def test_levels_are_chosen_by_an_importance_alone() -> None:
    codec = make_variable(None)
    encoded = codec.encode_with_side(codec_tone(codec, 3200))
    with pytest.raises(ValueError, match=r"no 'importance' .* `encode_with_importance`"):
        codec.allocate(encoded, level=1.0)


def test_encoded_tells_its_depth() -> None:
    codes = torch.zeros(1, 2, 3, dtype=torch.long)
    assert Encoded(codes).depth is None
    depth = Encoded(codes, {"depth": torch.tensor([[1.0, 2.0, 1.0]])}).depth
    assert depth is not None and depth.dtype == torch.int64 and depth.tolist() == [[1, 2, 1]]


def test_equal_frames_have_equal_depth() -> None:
    assert depth_of(torch.full((1, 5), 0.5), 1.0, K).tolist() == [[3] * 5]


@pytest.mark.parametrize("grid", [0, 20, 300])
def test_a_batch_on_a_grid_has_the_depth_of_every_frame(grid: int) -> None:
    variable, n_samples = make_variable(), 9700  # 30 frames and 100 samples
    tone = codec_tone(variable, n_samples)[0]
    [encoded] = variable.encode_batch_with_side([tone], grid=grid)
    assert len(encoded.side["depth"]) == encoded.codes.shape[-1] == (32 if grid == 20 else 31)
    [heard] = variable.decode_batch([encoded.codes], [n_samples], [encoded.side])
    assert heard.shape == (1, n_samples)


def test_a_view_tells_its_rate() -> None:
    codec = make_variable(None)
    assert "1.18 kbps)" in repr(codec)
    assert "level 0.7)" in repr(codec.with_rate(level=0.7))
    assert "0.9 kbps on average)" in repr(codec.with_rate(bitrate=0.9))


def test_a_description_tells_a_variable_bitrate() -> None:
    codec = make_variable(None)
    assert "kbps, or a variable one below" in str(describe_codec(codec))
    view = describe_codec(codec.with_rate(bitrate=0.9))
    assert "0.9 kbps on average, variable" in str(view) and view.to_dict()["mean_kbps"] == 0.9
    assert "variable" not in describe_codec(make_stft_codec()).to_dict()


def test_a_view_at_a_bitrate_that_no_audio_reaches_is_refused() -> None:
    codec = make_variable(None)
    for kbps in (0.2, 3.0):
        with pytest.raises(ValueError, match=r"kbps: stft-variable reaches 0\.295 to 1\.18 kbps"):
            codec.with_rate(bitrate=kbps)
