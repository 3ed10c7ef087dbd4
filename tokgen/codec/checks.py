"""Input checks for codecs, and the error for codecs that need whole utterances."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from tokgen.codec.spec import CodecSpec

__all__ = [
    "LOUD_PEAK",
    "MAX_PEAK",
    "NotCausal",
    "WholeOnly",
    "check_blocks",
    "check_codes",
    "check_codes_layout",
    "check_item",
    "check_item_codes",
    "check_layout",
    "check_lengths",
    "check_levels",
    "check_mono",
    "check_n_samples",
    "check_waveform",
    "zero_padding",
]

LOUD_PEAK = 10.0  # 20 dB over full scale: louder audio warns
MAX_PEAK = 1000.0  # 60 dB over full scale: louder audio is refused
_SCALED = {
    torch.uint8: "(x.float() - 128) / 128",
    torch.int8: "x.float() / 128",
    torch.int16: "x.float() / 32768",
    torch.int32: "x.double() / 2147483648, or x.float() / 32768 for 16-bit samples",
    torch.int64: "x.float() / 32768 for 16-bit samples",
}


def check_waveform(waveform: Tensor, channels: int = 1) -> Tensor:
    """Return a waveform [B, 1 or `channels`, N] as float32.

    A peak above `LOUD_PEAK` warns. It is not refused, because clipping overshoots stay below 2, but
    codecs that diverge under repeated encoding may exceed it.

    Raises:
        TypeError: not a tensor of floats.
        ValueError: another shape, no samples, NaN or infinity, or a peak above `MAX_PEAK`.
    """
    check_layout(waveform, channels)
    if waveform.shape[-1] == 0:
        raise ValueError("waveform of 0 samples: nothing to encode")
    waveform = waveform.float()
    low, high = (float(x) for x in waveform.detach().aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("waveform holds NaN or infinity: repair or drop the clip")
    peak = max(-low, high)
    if peak > MAX_PEAK:
        raise ValueError(
            f"waveform x peaks at {peak:.0f}: expected [-1, 1], and at most {MAX_PEAK:.0f}; for "
            "16-bit samples pass x / 32768"
        )
    if peak > LOUD_PEAK:
        warnings.warn(
            f"waveform x peaks near {round(peak, -1):.0f}, far outside [-1, 1] (above "
            f"{LOUD_PEAK:.0f}), so its codes are poor: pass x / x.abs().max()",
            stacklevel=2,
        )
    return waveform


def check_layout(waveform: Tensor, channels: int = 1) -> None:
    """Check that a waveform is a tensor of floats [B, 1 or `channels`, N]."""
    _check_floats(waveform, "[B, 1, N]")
    if waveform.ndim != 3 or waveform.shape[1] not in (1, channels):
        also = f" or [B, {channels}, N]" if channels > 1 else ""
        raise ValueError(
            f"waveform x of shape {tuple(waveform.shape)}: expected mono [B, 1, N]{also}; "
            f"{_reshaped(waveform.shape, channels)}"
        )


def check_mono(waveform: Tensor) -> Tensor:
    """Return a waveform [N] or [1, N] as float32 [N]. Its values are not checked."""
    _check_floats(waveform, "[N]")
    shape = tuple(waveform.shape)
    if len(shape) > 2 or (len(shape) == 2 and shape[0] != 1):
        fix = "x.mean(0) mixes channels [C, N]"
        if len(shape) == 2 and shape[1] < shape[0]:
            fix = "x.mean(1) mixes channels [N, C]"
        elif len(shape) == 3:
            fix = "list(x) are the clips of a batch [B, 1, N]"
        raise ValueError(f"waveform x of shape {shape}: expected mono [N] or [1, N]; {fix}")
    if not shape:
        raise ValueError("a waveform of no axes: expected a list of waveforms [N] or [1, N]")
    if not waveform.numel():
        raise ValueError("waveform of 0 samples: nothing to encode")
    return waveform.reshape(-1).float()


def check_item(waveform: Tensor, channels: int) -> Tensor:
    """Return a waveform [N], [1, N] or [`channels`, N] as float32 [C, N], values unchecked."""
    if isinstance(waveform, Tensor) and waveform.ndim == 2 and channels == len(waveform) > 1:
        _check_floats(waveform, f"[{channels}, N]")
        check_mono(waveform[0])
        return waveform.float()
    return check_mono(waveform)[None]


def _check_floats(waveform: Tensor, layout: str) -> None:
    if not isinstance(waveform, Tensor):
        kind, dtype = type(waveform).__name__, getattr(waveform, "dtype", "")
        call = "torch.from_numpy(x)" if kind == "ndarray" else "torch.as_tensor(x)"
        of = f" of {dtype}" if dtype else ""
        scale = ".float() / 32768" if "int" in str(dtype) else ""
        raise TypeError(
            f"waveform x is a {kind}{of}, not a tensor {layout} of floats: pass {call}{scale}"
        )
    if not waveform.is_floating_point():
        fix = _SCALED.get(waveform.dtype, "a real signal, as floats")
        raise TypeError(f"waveform x of {waveform.dtype}: expected floats in [-1, 1]; pass {fix}")


def _reshaped(shape: Sequence[int], channels: int) -> str:
    """Say how a waveform x of this shape becomes [B, 1 or `channels`, N]."""
    last = shape[-1] if shape else 0
    if len(shape) == 1:
        return "pass x[None, None]"
    if len(shape) == 2 and shape[0] in (1, channels):
        return "pass x[None]"
    if len(shape) == 2 and last in (1, channels):
        return "pass x.T[None]"
    if len(shape) == 2 and last < shape[0]:
        return "pass x.mean(1)[None, None] for the channels [N, C] of one clip"
    if len(shape) == 2:
        return "pass x[:, None] for B clips, x.mean(0)[None, None] for the channels of one clip"
    if len(shape) == 3 and last in (1, channels):
        return "pass x.mT"
    if len(shape) == 3 and last < shape[1]:
        return "pass x.mean(2)[:, None] for channels [B, N, C]"
    return "pass x.mean(1, keepdim=True) for channels [B, C, N]"


def check_lengths(lengths: Sequence[int] | None, waveform: Tensor) -> list[int]:
    """Return the true length of each item of a batch [B, C, N]; None means N for all."""
    size, n = len(waveform), waveform.shape[-1]
    if lengths is None:
        if size > 1 and n == 1:
            raise ValueError(
                f"waveform x of shape {tuple(waveform.shape)} holds {size} clips of one sample: "
                f"for one clip of {size} samples pass x.permute(2, 1, 0)"
            )
        return [n] * size
    lengths = [int(x) for x in lengths]
    if len(lengths) != size or not all(1 <= x <= n for x in lengths):
        raise ValueError(f"lengths {lengths}: expected {size} values in 1..{n}")
    return lengths


def zero_padding(waveform: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return a right-padded batch [B, C, N] with zeros after the true length of each item."""
    n = waveform.shape[-1]
    if all(length == n for length in lengths):
        return waveform
    ends = torch.tensor(lengths, device=waveform.device)
    padding = torch.arange(n, device=waveform.device) >= ends[:, None]
    return waveform.masked_fill(padding[:, None], 0.0)


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
    """Return codes [B, k, T] as int64.

    Raises:
        TypeError: not a tensor.
        ValueError: not integers, another shape, or a code outside the codebook.
    """
    check_codes_layout(codes, spec)
    codes = codes.long()
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or high >= spec.codebook_size:
        raise ValueError(
            f"codes span {low}..{high}: {spec.name} has entries 0..{spec.codebook_size - 1}; "
            "a MASK token left in, or codes of another codec?"
        )
    if spec.level_sizes:
        _check_sizes(codes, spec)
    return codes


def _check_sizes(codes: Tensor, spec: CodecSpec) -> None:
    """Check that no code lies outside its level, for levels of different sizes."""
    for level, (row, size) in enumerate(zip(codes.unbind(1), spec.level_sizes, strict=False)):
        if (high := int(row.max())) >= size:
            raise ValueError(
                f"level {level} has code {high}: {spec.name} has entries 0..{size - 1} there; "
                "codes of another codec, or levels in another order?"
            )


def check_codes_layout(codes: Tensor, spec: CodecSpec) -> None:
    """Check that codes are integers [B, k, T] of 1..K levels. Their values are not checked."""
    _check_integers(codes, "[B, K, T]")
    shape, levels = tuple(codes.shape), spec.n_codebooks
    if len(shape) == 3 and 1 <= shape[1] <= levels and shape[2]:
        return
    takes = f"{spec.name} takes [B, K, T] of 1..{levels} levels and at least 1 frame"
    fix = ""
    if len(shape) == 1:
        fix = "; pass codes[None, None]"
    elif len(shape) == 2:
        fix = _transposed(shape, levels, "codes[None]", "codes.T[None]")
    elif len(shape) == 3:
        fix = _transposed(shape[1:], levels, "", "codes.mT")
    raise ValueError(f"codes of shape {shape}: {takes}{fix}")


def check_item_codes(codes: Tensor, spec: CodecSpec) -> None:
    """Check that codes are integers [k, T] of one utterance. Their values are not checked."""
    _check_integers(codes, "[K, T]")
    shape, levels = tuple(codes.shape), spec.n_codebooks
    if len(shape) == 2 and 1 <= shape[0] <= levels and shape[1]:
        return
    fix = ""
    if len(shape) == 2:
        fix = _transposed(shape, levels, "", "codes.T")
    elif len(shape) == 3 and shape[0] == 1:
        fix = "; pass codes[0]"
    raise ValueError(
        f"codes of shape {shape}: expected [K, T] of 1..{levels} levels and at least 1 frame{fix}"
    )


def _check_integers(codes: Tensor, layout: str) -> None:
    if not isinstance(codes, Tensor):
        raise TypeError(
            f"codes are a {type(codes).__name__}, not a tensor {layout}: "
            "pass torch.as_tensor(codes)"
        )
    if codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
        raise ValueError(
            f"codes of shape {tuple(codes.shape)} {codes.dtype}: expected integers {layout}; "
            "encode returns them"
        )


def _transposed(shape: Sequence[int], levels: int, as_is: str, transposed: str) -> str:
    """Say how codes of one utterance, [K, T] or rows [T, K], get the wanted layout."""
    fixes = []
    if as_is and 1 <= shape[0] <= levels:
        fixes.append(f"pass {as_is}" + (" for [K, T]" if shape[1] <= levels else ""))
    if 1 <= shape[1] <= levels:
        fixes.append(f"pass {transposed} for rows [T, K]")
    return "; " + ", or ".join(fixes) if fixes else ""


def check_n_samples(n_samples: int | None, n_frames: int, spec: CodecSpec, lead: int = 0) -> int:
    """Return the number of samples to decode from `n_frames` frames; None means all.

    Args:
        lead: samples that are dropped at the beginning.
    """
    full = spec.n_samples(n_frames) - lead
    if full < 1:
        raise ValueError(f"{n_frames} frames hold no sample after a lead of {lead} samples")
    if n_samples is not None and not 0 < n_samples <= full:
        raise ValueError(
            f"n_samples = {n_samples}: {n_frames} frames hold 1..{full} samples; "
            "pass the length that was encoded"
        )
    return full if n_samples is None else n_samples


def check_blocks(blocks: Iterable[Tensor], channels: int, device: torch.device) -> Iterator[Tensor]:
    """Yield blocks [1, n] or [1, C, n] as [1, C, n] on `device`, without the empty ones.

    They are copies, so the caller can fill the memory of a block again.
    """
    for block in blocks:
        _check_floats(block, "[1, 1, n]")
        block = block[None] if block.ndim == 2 else block
        if block.ndim == 3 and len(block) != 1:
            shape = tuple(block.shape)
            raise ValueError(f"block of shape {shape}: expected one item, [1, n] or [1, C, n]")
        if block.shape[-1]:
            block = check_waveform(block, channels).clone()
            yield block.expand(-1, channels, -1).to(device)


class WholeOnly(ValueError):
    """The codec needs the whole utterance; `reason` is a verb phrase that says why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            f"{name} {reason}, so it cannot code audio piece by piece: "
            "cut the audio into utterances and use encode and decode, or use a codec with finite "
            "look-ahead (tokgen's STFT codec, DAC, EnCodec)"
        )


class NotCausal(ValueError):
    """`stream` was called for a codec that is not causal."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} is not causal, so it has no stream: use a causal codec (tokgen's STFT codec "
            "with causal = true such as speech-16k-live, transformers' Mimi or EnCodec at 24 kHz), "
            "or CodecStream, which waits for the audio that tokgen's STFT codec, DAC or EnCodec "
            "look ahead to"
        )
