"""Input checks for codecs, and the error for codecs that need whole utterances."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from tokgen.codec.spec import CodecSpec

__all__ = [
    "WholeOnly",
    "check_blocks",
    "check_codes",
    "check_lengths",
    "check_levels",
    "check_n_samples",
    "check_waveform",
]


def check_waveform(waveform: Tensor, channels: int = 1) -> Tensor:
    """Return a waveform [B, 1 or `channels`, N] as float32."""
    if not isinstance(waveform, Tensor):
        raise TypeError(
            f"waveform is a {type(waveform).__name__}, not a tensor [B, 1, N]: for a numpy array x "
            "[N], give torch.from_numpy(x)[None, None]"
        )
    if waveform.ndim != 3 or waveform.shape[1] not in (1, channels):
        also = f" or [B, {channels}, N]" if channels > 1 else ""
        raise ValueError(
            f"waveform of shape {tuple(waveform.shape)}: expected mono [B, 1, N]{also}; "
            "mix channels down first (tokgen.audio.files.read_audio does)"
        )
    if waveform.shape[-1] == 0:
        raise ValueError("waveform of 0 samples: nothing to encode")
    waveform = waveform.float()
    if not torch.isfinite(waveform).all():
        raise ValueError("waveform holds NaN or infinity: repair or drop the clip")
    return waveform


def check_lengths(lengths: Sequence[int] | None, waveform: Tensor) -> list[int]:
    """Return the true length of each item of a batch [B, C, N]; None means N for all."""
    n = waveform.shape[-1]
    if lengths is None:
        return [n] * waveform.shape[0]
    lengths = [int(x) for x in lengths]
    if len(lengths) != waveform.shape[0] or not all(1 <= x <= n for x in lengths):
        raise ValueError(f"lengths {lengths}: expected {waveform.shape[0]} values in 1..{n}")
    return lengths


def check_levels(n_codebooks: int | None, spec: CodecSpec) -> int:
    """Return the number of levels to keep; None means all."""
    keep = spec.n_codebooks if n_codebooks is None else n_codebooks
    if not 1 <= keep <= spec.n_codebooks:
        raise ValueError(
            f"n_codebooks = {keep}: {spec.name} has levels 1..{spec.n_codebooks}; "
            "leave it out to keep all"
        )
    return keep


def check_codes(codes: Tensor, spec: CodecSpec) -> Tensor:
    """Return codes [B, k, T] as int64."""
    if codes.ndim != 3 or codes.is_floating_point():
        raise ValueError(
            f"codes of shape {tuple(codes.shape)} {codes.dtype}: expected integers [B, K, T]"
        )
    if not 1 <= codes.shape[1] <= spec.n_codebooks or codes.shape[2] < 1:
        raise ValueError(
            f"codes of shape {tuple(codes.shape)}: {spec.name} takes "
            f"1..{spec.n_codebooks} levels and at least 1 frame"
        )
    codes = codes.long()
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or high >= spec.codebook_size:
        raise ValueError(
            f"codes span {low}..{high}: {spec.name} has entries 0..{spec.codebook_size - 1}; "
            "a MASK token left in, or codes of another codec?"
        )
    return codes


def check_n_samples(n_samples: int | None, n_frames: int, spec: CodecSpec) -> int:
    """Return the number of samples to decode from `n_frames` frames; None means all."""
    full = spec.n_samples(n_frames)
    if n_samples is not None and not 0 < n_samples <= full:
        raise ValueError(
            f"n_samples = {n_samples}: {n_frames} frames hold 1..{full} samples; "
            "pass the length that was encoded"
        )
    return full if n_samples is None else n_samples


def check_blocks(blocks: Iterable[Tensor], channels: int, device: torch.device) -> Iterator[Tensor]:
    """Yield blocks [1, n] or [1, C, n] as [1, C, n] on `device`, without the empty ones."""
    for block in blocks:
        block = block[None] if block.ndim == 2 else block
        if block.shape[0] != 1:
            shape = tuple(block.shape)
            raise ValueError(f"block of shape {shape}: expected one item, [1, n] or [1, C, n]")
        if block.shape[-1]:
            yield check_waveform(block, channels).expand(-1, channels, -1).to(device)


class WholeOnly(ValueError):
    """The codec needs the whole utterance; `reason` is a verb phrase that says why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            f"{name} {reason}, so it cannot code audio piece by piece: "
            "cut the audio into utterances and use encode and decode, or use a codec with finite "
            "look-ahead (tokgen's STFT codec, DAC, EnCodec)"
        )
