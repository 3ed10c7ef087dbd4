"""The codes and the depth of a block to bytes, and back. Blocks do not depend on each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokgen.bitstream.tgc.entropy import EntropyModel
from tokgen.bitstream.tgc.range_coder import DamagedStream, RangeDecoder, RangeEncoder
from tokgen.codec.depth import DepthCounts
from tokgen.codec.packing import pack_codes, unpack_codes

__all__ = ["decode_block", "decode_depth", "encode_block", "encode_depth"]

_LENGTH_BYTES = 2  # before the bytes of the depth


def encode_block(
    codes: NDArray[np.int64],
    codebook_size: int,
    model: EntropyModel | None = None,
    depth: NDArray[np.int64] | None = None,
) -> bytes:
    """Encode codes int64 [k, t], frame by frame, and in a frame level by level.

    Args:
        codes: 1 to K levels of at least one frame.
        codebook_size: entries per level.
        model: gives the counts of the range coder. None packs each code into
            ceil(log2(codebook_size)) bits.
        depth: levels of each frame [t], 1..k; the others are left out. None codes all k levels.
    Raises:
        ValueError: a code outside the codebook, or a model of another codec.
    """
    if codes.min() < 0 or codes.max() >= codebook_size:
        raise ValueError(
            f"codes span {codes.min()}..{codes.max()}: expected 0..{codebook_size - 1}"
        )
    if model is None:
        live = codes.T if depth is None else codes.T[_live(depth, len(codes))]
        return pack_codes(live, codebook_size)
    _check_model(model, len(codes), codebook_size)
    encoder, state = RangeEncoder(), model.start(len(codes))
    for i, every in enumerate(np.ascontiguousarray(codes.T)):
        frame = every if depth is None else every[: depth[i]]
        rows = [model.counts(state, level, frame[:level]) for level in range(len(frame))]
        encoder.encode(frame, np.stack(rows))
        state = model.update(state, frame)
    return encoder.finish()


def decode_block(
    data: bytes,
    n_levels: int,
    n_frames: int,
    codebook_size: int,
    model: EntropyModel | None = None,
    depth: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Decode what `encode_block` returned to codes int64 [n_levels, n_frames], 0 past the depth.

    Raises:
        DamagedStream: the bytes do not hold such codes.
        ValueError: a model of another codec.
    """
    if model is None:
        try:
            if depth is None:
                codes = unpack_codes(data, n_frames, n_levels, codebook_size)
            else:
                codes = np.zeros((n_frames, n_levels), np.int64)
                live = unpack_codes(data, int(depth.sum()), 1, codebook_size)
                codes[_live(depth, n_levels)] = live[:, 0]
        except ValueError as error:
            raise DamagedStream(str(error)) from error
        return np.ascontiguousarray(codes.T)
    _check_model(model, n_levels, codebook_size)
    decoder, state = RangeDecoder(data), model.start(n_levels)
    codes = np.zeros((n_frames, n_levels), np.int64)
    for i, every in enumerate(codes):
        frame = every if depth is None else every[: depth[i]]
        for level in range(len(frame)):
            frame[level] = decoder.decode(model.counts(state, level, frame[:level]))
        state = model.update(state, frame)
    return np.ascontiguousarray(codes.T)


def encode_depth(depth: NDArray[np.int64], n_levels: int) -> bytes:
    """Encode the depth int64 [t] of a block with `DepthCounts`: its length, and so many bytes.

    Raises:
        ValueError: a depth outside 1..n_levels.
    """
    if depth.min() < 1 or depth.max() > n_levels:
        raise ValueError(f"depth spans {depth.min()}..{depth.max()}: expected 1..{n_levels}")
    encoder = RangeEncoder()
    if n_levels > 1:
        counts, rows = DepthCounts(n_levels), np.empty((len(depth), n_levels), np.int64)
        for row, value in zip(rows, depth.tolist(), strict=True):
            row[:] = counts.row()
            counts.update(value)
        encoder.encode(depth - 1, rows)
    data = encoder.finish()
    return len(data).to_bytes(_LENGTH_BYTES, "little") + data


def decode_depth(data: bytes, n_frames: int, n_levels: int) -> tuple[NDArray[np.int64], int]:
    """Decode what `encode_depth` returned.

    Args:
        data: begins with it; more may follow.
    Returns:
        the depth int64 [n_frames], and the number of bytes that it takes.
    Raises:
        DamagedStream: the bytes do not hold a depth.
    """
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    if len(data) < end:
        raise DamagedStream("its depth is cut short")
    decoder = RangeDecoder(data[_LENGTH_BYTES:end])
    depth = np.ones(n_frames, np.int64)
    if n_levels > 1:
        counts = DepthCounts(n_levels)
        for i in range(n_frames):
            depth[i] = decoder.decode(counts.row()) + 1
            counts.update(int(depth[i]))
    return depth, end


def _live(depth: NDArray[np.int64], n_levels: int) -> NDArray[np.bool_]:
    """Return a mask [t, n_levels] of the codes that a depth [t] keeps."""
    return np.arange(n_levels) < depth[:, None]


def _check_model(model: EntropyModel, n_levels: int, codebook_size: int) -> None:
    if n_levels > model.n_codebooks or codebook_size != model.codebook_size:
        raise ValueError(
            f"an entropy model of {model.n_codebooks} levels of {model.codebook_size} entries: the "
            f"codes have {n_levels} levels of {codebook_size}"
        )
