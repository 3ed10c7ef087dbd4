"""Code utterances of unequal length, as a batch or one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from tokgen.codec.aligned import LEAD, GridChoice, leads_in
from tokgen.codec.checks import check_item, check_item_codes, check_n_samples
from tokgen.codec.depth import check_depth
from tokgen.codec.spec import DEPTH, CodecSpec, Encoded, Side

__all__ = ["Coder", "check_side", "decode_batch", "encode_batch", "encode_each", "pad_batch"]


class Coder(Protocol):
    """Interface of a codec for the functions here."""

    spec: CodecSpec
    side_names: tuple[str, ...]

    @property
    def variable(self) -> bool: ...

    @property
    def device(self) -> torch.device: ...

    def encode_with_side(
        self,
        waveform: Tensor,
        *,
        lengths: Sequence[int] | None = None,
        grid: GridChoice = None,
    ) -> Encoded: ...

    def decode(self, codes: Tensor, *, side: Side | None = None) -> Tensor: ...

    def side_length(self, name: str, n_samples: int) -> int: ...


def pad_batch(waveforms: Sequence[Tensor], channels: int) -> tuple[Tensor, list[int]]:
    """Return utterances [N_i], [1, N_i] or [`channels`, N_i] as [B, C, N], and each N_i."""
    items = [check_item(w, channels) for w in waveforms]
    lengths, wide = [w.shape[-1] for w in items], max(len(w) for w in items)
    padded = [F.pad(w, (0, max(lengths) - w.shape[-1])) for w in items]
    return torch.stack([w.expand(wide, -1) for w in padded]), lengths


def encode_batch(codec: Coder, waveforms: Sequence[Tensor], grid: GridChoice) -> list[Encoded]:
    """Encode as `Codec.encode_batch_with_side` does."""
    if not waveforms:
        return []
    batch, lengths = pad_batch(waveforms, codec.spec.channels)
    encoded = codec.encode_with_side(batch, lengths=lengths, grid=grid)
    out = []
    for i, n in enumerate(lengths):
        n += 0 if grid is None else int(encoded.side[LEAD][i])
        side = {
            name: encoded.side[name][i, : codec.side_length(name, n)] for name in codec.side_names
        }
        if grid is not None:
            side[LEAD] = encoded.side[LEAD][i]
        out.append(Encoded(encoded.codes[i, :, : codec.spec.n_frames(n)], side))
    return out


def decode_batch(
    codec: Coder, codes: Sequence[Tensor], n_samples: Sequence[int], sides: Sequence[Side] | None
) -> list[Tensor]:
    """Decode as `Codec.decode_batch` does."""
    given = {len(codes), len(n_samples), len(codes if sides is None else sides)}
    if len(given) > 1:
        also = "" if sides is None else f" and {len(sides)} sides"
        raise ValueError(
            f"{len(codes)} codes, {len(n_samples)} n_samples{also}: pass one of each per utterance"
        )
    groups: dict[tuple[Any, ...], list[int]] = {}
    leads = [leads_in(side, 1, codec.spec)[0] for side in sides or [{}] * len(codes)]
    for i, c in enumerate(codes):
        check_item_codes(c, codec.spec)
        check_n_samples(n_samples[i], c.shape[-1], codec.spec, leads[i])
        names = _taken(codec, sides[i]) if sides is not None else []
        groups.setdefault((*c.shape, *names), []).append(i)
    out: list[Tensor] = [torch.empty(0)] * len(codes)
    for members in groups.values():
        side = None
        if sides is not None:
            side = {
                name: torch.stack([torch.as_tensor(sides[i][name]) for i in members])
                for name in _taken(codec, sides[members[0]])
            }
        batch = torch.stack([codes[i] for i in members])
        decoded = codec.decode(batch, side=side).cpu()
        for i, waveform in zip(members, decoded, strict=True):
            out[i] = waveform[:, leads[i] : leads[i] + n_samples[i]]
    return out


def encode_each(
    codec: Coder, waveform: Tensor, lengths: list[int], encode: Callable[[Tensor], Encoded]
) -> Encoded:
    """Encode the items [1, C, n] of a batch one by one at their true lengths."""
    n_items, n_samples = len(lengths), waveform.shape[-1]
    shape = n_items, codec.spec.n_codebooks, codec.spec.n_frames(n_samples)
    codes = torch.zeros(shape, dtype=torch.long, device=waveform.device)
    side: dict[str, Tensor] = {}
    for i, n in enumerate(lengths):
        found = encode(waveform[i : i + 1, :, :n])
        codes[i, : found.codes.shape[1], : codec.spec.n_frames(n)] = found.codes[0]
        for name, values in found.side.items():
            if name not in side:
                side[name] = waveform.new_zeros(n_items, codec.side_length(name, n_samples))
            side[name][i, : values.shape[-1]] = values[0]
    return Encoded(codes, side)


def check_side(codec: Coder, side: Side | None, codes: Tensor) -> Side:
    """Check as `Codec.check_side` does."""
    missing = sorted(set(codec.side_names) - set(side or {}))
    if missing:
        raise ValueError(
            f"{codec.spec.name} needs side information {missing} besides the codes: pass the "
            "`side` that `encode_with_side` returned"
        )
    found = {name: side[name].to(codec.device) for name in _taken(codec, side)} if side else {}
    for name, values in found.items():
        if name == DEPTH:
            check_depth(found, codes, codec.spec)
            continue
        expected = len(codes), codec.side_length(name, codec.spec.n_samples(codes.shape[-1]))
        if values.shape != expected:
            each = "one per chunk, " if codec.spec.chunk_length else ""
            raise ValueError(
                f"{name} of shape {tuple(values.shape)}: {codec.spec.name} needs {each}{expected}, "
                f"for codes of shape {tuple(codes.shape)}"
            )
    return found


def _taken(codec: Coder, side: Side) -> list[str]:
    """Return the names of the side information that decoding takes.

    Raises:
        ValueError: a depth for a codec that has none.
    """
    if DEPTH not in side or DEPTH in codec.side_names:
        return list(codec.side_names)
    if not codec.variable:
        raise ValueError(
            f"side information {DEPTH!r}: {codec.spec.name} has no variable bitrate; decode with "
            "the codec that made the codes"
        )
    return [*codec.side_names, DEPTH]
