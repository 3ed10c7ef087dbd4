"""Encode on a given grid of frames, and keep the place of every sample.

Zeros before the audio move its first whole frame to the grid, so the samples before that frame
become a short first frame. The number of zeros travels as the side information `lead`, float32
[B, 1]; `decode` drops them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from tokgen.codec.checks import check_blocks, check_mono
from tokgen.codec.grid import Roundtrip, check_grid, find_grid
from tokgen.codec.spec import CodecSpec, Encoded, Side

__all__ = [
    "LEAD",
    "SEARCHED_SECONDS",
    "Encoder",
    "GridChoice",
    "begin_on_grid",
    "drop_first",
    "drop_leads",
    "encode_aligned",
    "lead_of",
    "leads_in",
]

LEAD = "lead"
SEARCHED_SECONDS = 30  # first part of long audio, in which its grid is searched
GridChoice = Literal["auto"] | int | None  # find it, an offset in samples, or the first sample


class Encoder(Roundtrip, Protocol):
    """Interface of a codec for `encode_aligned`."""

    def encode_with_side(
        self, waveform: Tensor, n_codebooks: int | None = None, *, beam: int | None = None
    ) -> Encoded: ...


def lead_of(grid: GridChoice, audio: Tensor, codec: Roundtrip) -> int:
    """Return the number of zeros to put before audio [1, N], 0..hop_length - 1.

    Raises:
        ValueError: not a grid, an offset outside 0..hop_length - 1, or a codec with chunks.
    """
    spec = codec.spec
    check_grid(spec)
    if grid == "auto":
        found = find_grid(audio[..., : SEARCHED_SECONDS * spec.sample_rate], codec)
        offset = found.offset if found.found else 0
    elif isinstance(grid, int) and not isinstance(grid, bool) and 0 <= grid < spec.hop_length:
        offset = grid
    else:
        raise ValueError(
            f'grid = {grid!r}: pass "auto", None, or an offset of 0..{spec.hop_length - 1} '
            f"samples for {spec.name}"
        )
    return -offset % spec.hop_length


def encode_aligned(
    codec: Encoder,
    waveform: Tensor,
    lengths: Sequence[int],
    grid: GridChoice,
    n_codebooks: int | None,
    beam: int | None,
) -> Encoded:
    """Encode a checked batch [B, C, N] item by item, each on its own grid.

    Returns:
        codes [B, K, T] of the longest item with its zeros, and side information with `lead`.
    """
    items, leads = [], []
    for item, n in zip(waveform, lengths, strict=True):
        audio = item[:, :n]
        leads.append(lead_of(grid, check_mono(audio.mean(0)), codec))
        moved = F.pad(audio, (leads[-1], 0))[None]
        items.append(codec.encode_with_side(moved, n_codebooks, beam=beam))
    side = {name: _stack([e.side[name] for e in items]) for name in items[0].side}
    side[LEAD] = torch.tensor(leads, dtype=torch.float32)[:, None]
    return Encoded(_stack([e.codes for e in items]), side)


def _stack(items: Sequence[Tensor]) -> Tensor:
    """Join [1, ..., n_i] to [B, ..., n], with zeros after the shorter ones."""
    longest = max(item.shape[-1] for item in items)
    return torch.cat([F.pad(item, (0, longest - item.shape[-1])) for item in items])


def begin_on_grid(
    blocks: Iterable[Tensor], grid: GridChoice, codec: Roundtrip, device: torch.device
) -> tuple[Iterator[Tensor], int]:
    """Put zeros before audio that arrives in blocks.

    Args:
        blocks: as for `tokgen.codec.long_audio.encode_blocks`. "auto" reads the first
            `SEARCHED_SECONDS` of them before it returns.
    Returns:
        blocks [1, C, n], and the number of zeros that they begin with.
    """
    found, held, n = check_blocks(blocks, codec.spec.channels, device), [], 0
    for block in found:
        held.append(block)
        n += block.shape[-1]
        if n >= SEARCHED_SECONDS * codec.spec.sample_rate:
            break
    if not held:
        raise ValueError("0 samples in all blocks: nothing to encode")
    audio = torch.cat(held, dim=-1)
    lead = lead_of(grid, audio.mean(1), codec)
    return chain([audio.new_zeros(*audio.shape[:-1], lead), audio], found), lead


def drop_first(blocks: Iterable[Tensor], n: int) -> Iterator[Tensor]:
    """Yield blocks [..., n_i] without their first n samples."""
    for block in blocks:
        if block.shape[-1] > n:
            yield block[..., n:]
        n = max(0, n - block.shape[-1])


def leads_in(side: Side | None, n_items: int, spec: CodecSpec) -> list[int]:
    """Return the number of zeros before each item, as `side` has it; 0 if it has none.

    Raises:
        ValueError: not one whole number of 0..hop_length - 1 for each item.
    """
    if side is None or LEAD not in side:
        return [0] * n_items
    values = torch.as_tensor(side[LEAD]).detach().cpu()
    leads = values.double().flatten().tolist()
    if len(leads) != n_items or not all(v in range(spec.hop_length) for v in leads):
        raise ValueError(
            f"{LEAD} = {values.tolist()}: {spec.name} needs a whole number of "
            f"0..{spec.hop_length - 1} for each of {n_items} items; pass the `side` that "
            "`encode_with_side` returned"
        )
    return [int(v) for v in leads]


def drop_leads(waveform: Tensor, leads: Sequence[int]) -> Tensor:
    """Drop the first samples of each item [B, C, N]; returns [B, C, N - max(leads)]."""
    if not any(leads):
        return waveform
    n = waveform.shape[-1] - max(leads)
    return torch.stack([x[:, lead : lead + n] for x, lead in zip(waveform, leads, strict=True)])
