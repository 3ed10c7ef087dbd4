"""The codes of a block to bytes, and back. Blocks do not depend on each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokgen.bitstream.tgc.entropy import EntropyModel
from tokgen.bitstream.tgc.range_coder import DamagedStream, RangeDecoder, RangeEncoder
from tokgen.codec.packing import pack_codes, unpack_codes

__all__ = ["decode_block", "encode_block"]


def encode_block(
    codes: NDArray[np.int64], codebook_size: int, model: EntropyModel | None = None
) -> bytes:
    """Encode codes int64 [k, t], frame by frame, and in a frame level by level.

    Args:
        codes: 1 to K levels of at least one frame.
        codebook_size: entries per level.
        model: gives the counts of the range coder. None packs each code into
            ceil(log2(codebook_size)) bits.
    Raises:
        ValueError: a code outside the codebook, or a model of another codec.
    """
    if codes.min() < 0 or codes.max() >= codebook_size:
        raise ValueError(
            f"codes span {codes.min()}..{codes.max()}: expected 0..{codebook_size - 1}"
        )
    if model is None:
        return pack_codes(codes.T, codebook_size)
    _check_model(model, len(codes), codebook_size)
    encoder, state = RangeEncoder(), model.start(len(codes))
    for frame in np.ascontiguousarray(codes.T):
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
) -> NDArray[np.int64]:
    """Decode what `encode_block` returned to codes int64 [n_levels, n_frames].

    Raises:
        DamagedStream: the bytes do not hold such codes.
        ValueError: a model of another codec.
    """
    if model is None:
        try:
            found = unpack_codes(data, n_frames, n_levels, codebook_size)
        except ValueError as error:
            raise DamagedStream(str(error)) from error
        return np.ascontiguousarray(found.T)
    _check_model(model, n_levels, codebook_size)
    decoder, state = RangeDecoder(data), model.start(n_levels)
    codes = np.zeros((n_frames, n_levels), np.int64)
    for frame in codes:
        for level in range(n_levels):
            frame[level] = decoder.decode(model.counts(state, level, frame[:level]))
        state = model.update(state, frame)
    return np.ascontiguousarray(codes.T)


def _check_model(model: EntropyModel, n_levels: int, codebook_size: int) -> None:
    if n_levels > model.n_codebooks or codebook_size != model.codebook_size:
        raise ValueError(
            f"an entropy model of {model.n_codebooks} levels of {model.codebook_size} entries: the "
            f"codes have {n_levels} levels of {codebook_size}"
        )
