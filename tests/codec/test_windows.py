"""Stages give the same output, whatever pieces a sequence arrives in."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from makers.audio import cut
from makers.codecs import BLOCKWISE
from tokgen.codec.chunks import Chunks
from tokgen.codec.spec import Encoded
from tokgen.codec.windows import (
    MIN_FRAMES,
    Conv,
    Reach,
    Stage,
    Windows,
    decoder_reach,
    encoder_reach,
    finish_all,
    push_through,
    run_whole,
)

SIZES = st.lists(st.integers(0, 400), min_size=1, max_size=6)


def counting(n: int) -> Tensor:
    """Make [1, 1, n] of whole numbers, so that sums are exact."""
    return torch.randint(-99, 99, (1, 1, n), generator=torch.Generator().manual_seed(n)).double()


class Sums:
    """A network whose output frame is the sum of some frames before and after it."""

    def __init__(self, before: int, after: int, hop: int) -> None:
        self.before, self.after, self.hop, self.widest = before, after, hop, 0

    def __call__(self, x: Tensor, first: int) -> Tensor:
        self.widest = max(self.widest, x.shape[-1])
        padding = -x.shape[-1] % self.hop
        frames = nn.functional.pad(x, (0, padding)).unflatten(-1, (-1, self.hop)).sum(-1)
        padded = nn.functional.pad(frames, (self.before, self.after))
        return padded.unfold(-1, self.before + 1 + self.after, 1).sum(-1)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 3000),
    sizes=SIZES,
    reach=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    size=st.integers(1, 200),
    step=st.one_of(st.none(), st.integers(1, 9)),
    hop=st.integers(1, 5),
)
def test_pieces_give_what_the_whole_gives(
    n: int, sizes: list[int], reach: tuple[int, int], size: int, step: int | None, hop: int
) -> None:
    x, network = counting(n), Sums(*reach, hop)
    expected = network(x, 0)
    network.widest = 0
    stage = Windows(network, Reach(*reach), size=size, step=step, hop_in=hop)
    out, given = [], 0
    for piece in cut(x, sizes):
        out += list(stage.push(piece))
        given += piece.shape[-1]
        assert sum(part.shape[-1] for part in out) == stage.ready(given)
    out += list(stage.finish())
    assert torch.equal(torch.cat(out, dim=-1), expected)
    longest = max(size, step or 0) + sum(reach)
    assert network.widest <= hop * (max(longest, MIN_FRAMES) + 1)


def test_whole_and_pieces_run_the_same_windows() -> None:
    def windows_of(sizes: list[int]) -> list[tuple[int, Tensor]]:
        seen = []

        def run(x: Tensor, first: int) -> Tensor:
            seen.append((first, x.clone()))
            return x[..., ::4]

        stage = Windows(run, Reach(7, 3), size=100, hop_in=4)
        for piece in cut(counting(1801), sizes):
            list(stage.push(piece))
        list(stage.finish())
        return seen

    whole = windows_of([1801])
    assert len(whole) == 5
    for sizes in ([1], [4, 399], [1000, 1]):
        for (first, x), (other, y) in zip(windows_of(sizes), whole, strict=True):
            assert first == other and torch.equal(x, y)


def test_short_windows_are_filled_with_the_past() -> None:
    lengths = []

    def run(x: Tensor, first: int) -> Tensor:
        lengths.append(x.shape[-1])
        return x

    stage = Windows(run, Reach(2, 1), size=1000, step=1)
    for piece in cut(counting(300), [1]):
        list(stage.push(piece))
    assert lengths == [MIN_FRAMES] * len(lengths)


@pytest.mark.parametrize("size", [17, 93, 160])
def test_widths_that_round_differently_are_avoided(size: int) -> None:
    lengths = []

    def run(x: Tensor, first: int) -> Tensor:
        lengths.append(x.shape[-1])
        return x

    x = counting(1000)
    assert torch.equal(run_whole([Windows(run, Reach(2, 1), size=size)], x), x)
    assert len(lengths) == -(-1000 // size) and all(length % 32 for length in lengths)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 3000), sizes=SIZES, stride=st.integers(200, 400))
def test_chunks_are_independent(n: int, sizes: list[int], stride: int) -> None:
    x = counting(n)
    n_chunks = -(-n // stride)
    padded = nn.functional.pad(x, (0, (n_chunks - 1) * stride + 400 - n))
    expected = padded.unfold(-1, 400, stride).cumsum(-1)[..., ::100].flatten(-2)

    def run(chunk: Tensor) -> Tensor:
        return chunk.cumsum(-1)[..., ::100]

    stages: list[Stage] = [Chunks(run, 400, stride, 4)]
    out, given = [], 0
    for piece in cut(x, sizes):
        out += list(push_through(stages, piece))
        given += piece.shape[-1]
        assert sum(part.shape[-1] for part in out) == stages[0].ready(given)
    out += list(finish_all(stages))
    assert torch.equal(torch.cat(out, dim=-1), expected)


def test_a_chain_ends_stage_after_stage() -> None:
    """The second stage gets what the first one holds back until the end."""
    x = counting(700)
    first, second = Sums(2, 30, 1), Sums(30, 40, 1)
    stages: list[Stage] = [
        Windows(first, Reach(2, 30), size=100),
        Windows(second, Reach(30, 40), size=64),
    ]
    assert torch.equal(run_whole(stages, x), second(first(x, 0), 0))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(0, 4)),
        min_size=1,
        max_size=3,
    )
)
def test_encoder_reach_equals_the_reach_of_gradients(
    shapes: list[tuple[int, int, int, int]],
) -> None:
    layers = [Conv(k, s, d, min(left, d * (k - 1))) for k, s, d, left in shapes]
    hop, frames, middle = 1, 61, 30
    for layer in layers:
        hop *= layer.stride
    x = torch.zeros(1, 1, frames * hop, requires_grad=True)
    y: Tensor = x
    for layer in layers:
        weight = torch.ones(1, 1, layer.kernel)
        padded = nn.functional.pad(y, (layer.left, layer.dilation * layer.kernel))
        y = nn.functional.conv1d(padded, weight, stride=layer.stride, dilation=layer.dilation)
    y[..., middle].sum().backward()
    assert x.grad is not None
    seen = x.grad[0, 0].nonzero()[:, 0] // hop - middle
    reach = encoder_reach(layers)
    assert (max(0, -int(seen.min())), max(0, int(seen.max()))) == (reach.before, reach.after)


def test_decoder_reach_of_transposed_convolutions() -> None:
    """A kernel of two strides, trimmed only at the end, sees the frame and the one before it."""
    up = Conv(8, 4, left=0, transposed=True)
    assert decoder_reach([up]) == Reach(1, 0)
    assert decoder_reach([Conv(8, 4, left=2, transposed=True)]) == Reach(1, 1)
    assert decoder_reach([Conv(7, left=6), up]) == Reach(7, 0)
    assert decoder_reach([Conv(7, left=6), up], mirrored=True).first == 7


@pytest.mark.parametrize(("left", "first"), [(0, 1), (3, 1), (4, 2), (9, 3)])
def test_reflect_padding_needs_the_frames_that_it_mirrors(left: int, first: int) -> None:
    layers = [Conv(1, 4), Conv(left + 1, left=left)]
    assert encoder_reach([Conv(left + 1, left=left), Conv(1, 4)], mirrored=True).first == first
    assert encoder_reach(layers, mirrored=True).first == left + 1
    assert encoder_reach(layers).first == 1


@pytest.mark.parametrize("pushes", [[40], [7, 33], [1] * 40])
@pytest.mark.parametrize("whole", [0, 39, 40, 41, 100])
def test_short_sequences_run_as_one_window(pushes: list[int], whole: int) -> None:
    seen = []

    def run(window: torch.Tensor, first: int) -> torch.Tensor:
        seen.append(window.shape[-1])
        return window + first * 0

    windows = Windows(run, Reach(2, 2), size=10, whole=whole)
    x = torch.arange(40.0)
    pieces = [piece for part in x.split(pushes) for piece in windows.push(part)]
    pieces += windows.finish()
    assert torch.equal(torch.cat(pieces), x)
    assert seen == [40] if whole >= 40 else len(seen) == 4


@torch.no_grad()
@pytest.mark.parametrize("kind", sorted(BLOCKWISE))
def test_decoders_begin_within_a_sequence(kind: str) -> None:
    codec = BLOCKWISE[kind]()
    spec = codec.spec
    codec.window_frames, per_chunk = 7, spec.chunk_length // spec.hop_length or 1
    n_chunks = max(3, 100 // per_chunk)
    codes = torch.randint(spec.codebook_size, (1, spec.n_codebooks, n_chunks * per_chunk))
    side = {name: torch.rand(1, n_chunks) for name in codec.side_names}
    if "depth" in side:
        side["depth"] = torch.randint(1, spec.n_codebooks + 1, codes[:, 0].shape)
    skipped = 0
    for step in (None, 3):
        decoder = codec.block_decoder(step)
        whole = torch.cat([*decoder.push(Encoded(codes, side)), *decoder.finish()], dim=-1)
        for n in (1, whole.shape[-1] // 2, whole.shape[-1] - 1):
            decoder = codec.block_decoder(step)
            frame, first = decoder.skip(n)
            later = {
                name: x[:, frame if name == "depth" else frame // per_chunk :]
                for name, x in side.items()
            }
            rest = Encoded(codes[..., frame:], later)
            found = torch.cat([*decoder.push(rest), *decoder.finish()], dim=-1)
            assert first <= n and torch.equal(found[..., n - first :], whole[..., n:])
            skipped = max(skipped, frame)
    with_lstm = ("encodec-24k", "encodec-centred", "encodec-variable", "voicecraft")
    assert (skipped == 0) == (kind in with_lstm)
