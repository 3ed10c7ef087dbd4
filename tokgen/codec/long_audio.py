"""Encode and decode audio of any length in bounded memory.

encoded = encode_blocks(codec, blocks)             # equals codec.encode_with_side
latents = encode_latent_blocks(continuous, blocks) # equals continuous.encode
for audio in decode_blocks(codec, codes, n): ...   # equals codec.decode
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import torch
from torch import Tensor

from tokgen.audio.files import AudioWriter, open_blocks
from tokgen.audio.sources import Source
from tokgen.codec.aligned import LEAD, GridChoice, begin_on_grid, drop_first, leads_in
from tokgen.codec.base import Codec
from tokgen.codec.checks import WholeOnly, check_blocks, check_codes, check_levels, check_n_samples
from tokgen.codec.continuous import ContinuousCodec
from tokgen.codec.depth import refuse_depth
from tokgen.codec.spec import Encoded, Side
from tokgen.codec.stable.decoding import Searchable, stable_blocks
from tokgen.codec.stable.settings import Reached, StableDecoding
from tokgen.codec.stable.tally import Tally
from tokgen.codec.windows import BlockDecoder
from tokgen.runs.progress import ProgressBar, progress_bar

__all__ = [
    "BAR_DELAY",
    "WHOLE_SECONDS",
    "DecodedAudio",
    "EncodedAudio",
    "TooLong",
    "audio_bar",
    "decode_audio_file",
    "decode_blocks",
    "encode_audio_file",
    "encode_blocks",
    "encode_latent_blocks",
]

WHOLE_SECONDS = 1200  # longest audio for a codec that needs the whole utterance
BAR_DELAY = 5  # seconds before a progress bar is shown


class TooLong(ValueError):
    """Audio too long for a codec that needs the whole utterance."""


class EncodedAudio(NamedTuple):
    """The codes of an audio file, with its length and channels.

    Attributes:
        encoded: the result of `encode_blocks`.
        n_samples: length of the audio at the codec's rate.
        channels: 1 if the audio was mono or mixed to mono, else the codec's.
    """

    encoded: Encoded
    n_samples: int
    channels: int


class DecodedAudio(NamedTuple):
    """Facts about the audio file that `decode_audio_file` wrote.

    Attributes:
        n_clipped: samples outside [-1, 1], which were clipped.
        reached: what stable decoding reached; None for plain decoding.
    """

    n_clipped: int
    reached: Reached | None


@torch.no_grad()
def encode_blocks(
    codec: Codec,
    blocks: Iterable[Tensor],
    n_codebooks: int | None = None,
    *,
    grid: GridChoice = None,
    level: float | None = None,
    bitrate: float | None = None,
) -> Encoded:
    """Encode audio that arrives in blocks, such as those of `tokgen.audio.files.open_blocks`.

    Args:
        blocks: float [1, n] or [1, C, n] at the codec's rate, any n.
        n_codebooks: levels to keep; None keeps all K.
        grid: as for `Codec.encode`; "auto" searches the first `SEARCHED_SECONDS` of
            `tokgen.codec.aligned`.
        level, bitrate: as for `Codec.encode`.
    Returns:
        codes [1, K, T] and side information, equal to those of `codec.encode_with_side`.
    Raises:
        TooLong: more than `WHOLE_SECONDS` for a codec that needs the whole utterance.
        ValueError: no audio, or as `Codec.encode`.
    """
    keep = check_levels(n_codebooks, codec.spec)
    if level is not None or bitrate is not None:
        codec = codec.with_rate(level=level, bitrate=bitrate)
    if grid is not None:
        blocks, lead = begin_on_grid(blocks, grid, codec, codec.device)
        encoded = encode_blocks(codec, blocks, keep)
        return Encoded(encoded.codes, {**encoded.side, LEAD: torch.tensor([[float(lead)]])})
    try:
        encoder = codec.for_levels(keep).block_encoder()
    except WholeOnly as reason:
        return codec.encode_with_side(_collect(codec, blocks, reason), keep)
    frames = bytearray()  # one growing buffer; many small tensors would fragment memory
    side: dict[str, list[Tensor]] = {name: [] for name in codec.side_names}

    def collect(pieces: Iterator[Encoded]) -> None:
        for piece in pieces:
            frames.extend(piece.codes[0, :keep].T.int().cpu().numpy().tobytes())
            for name, values in piece.side.items():
                side[name].append(values)

    for block in check_blocks(blocks, codec.spec.channels, codec.device):
        collect(encoder.push(block))
    collect(encoder.finish())
    if not frames:
        raise ValueError("0 samples in all blocks: nothing to encode")
    codes = torch.frombuffer(frames, dtype=torch.int32).view(1, -1, keep).mT.contiguous()
    joined = {name: torch.cat(values, dim=-1) for name, values in side.items()}
    return Encoded(codes.to(codec.device).long(), joined)


@torch.no_grad()
def encode_latent_blocks(codec: ContinuousCodec, blocks: Iterable[Tensor]) -> Tensor:
    """Encode audio that arrives in blocks to latents, as `encode_blocks` does to codes.

    Args:
        codec: a codec with `reaches`; others need the whole utterance.
        blocks: as for `encode_blocks`.
    Returns:
        latents float32 [1, D, T], equal to those of `codec.encode`.
    Raises:
        TooLong, ValueError: as for `encode_blocks`.
    """
    if codec.reaches is None:
        reason = WholeOnly(codec.spec.name, "attends to the whole utterance")
        return codec.encode(_collect(codec, blocks, reason))
    stage, pieces = codec.encoder_windows(), []
    for block in check_blocks(blocks, codec.spec.channels, codec.device):
        pieces += [piece.float() for piece in stage.push(block)]
    pieces += [piece.float() for piece in stage.finish()]
    if not pieces:
        raise ValueError("0 samples in all blocks: nothing to encode")
    return torch.cat(pieces, dim=-1)


def decode_blocks(
    codec: Codec,
    codes: Tensor,
    n_samples: int | None = None,
    side: Side | None = None,
    *,
    mono: bool = True,
) -> Iterator[Tensor]:
    """Decode codes [1, k, T] of one item block by block.

    Args:
        n_samples, side, mono: as for `Codec.decode`.
    Returns:
        blocks of waveform, float32 [1, 1, n], or [1, spec.channels, n] with `mono=False`;
        concatenated, they equal `codec.decode`.
    Raises:
        ValueError: several items, or as `Codec.decode`.
    """
    codes = check_codes(codes, codec.spec)
    if len(codes) != 1:
        raise ValueError(f"codes of {len(codes)} items: decode_blocks takes one, [1, k, T]")
    lead = leads_in(side, 1, codec.spec)[0]
    n_samples = check_n_samples(n_samples, codes.shape[-1], codec.spec, lead)
    encoded = Encoded(codes.to(codec.device), codec.check_side(side, codes))
    try:
        decoder = codec.block_decoder()
    except WholeOnly:
        return iter([codec.decode(codes, n_samples, side, mono=mono)])
    return drop_first(_decoded(decoder, encoded, lead + n_samples, mono), lead)


@torch.no_grad()
def _decoded(
    decoder: BlockDecoder, encoded: Encoded, n_samples: int, mono: bool
) -> Iterator[Tensor]:
    missing, block = n_samples, torch.empty(0)
    for piece in chain(decoder.push(encoded), decoder.finish()):
        block = (piece.mean(1, keepdim=True) if mono else piece)[..., :missing].float()
        missing -= block.shape[-1]
        if block.shape[-1]:
            yield block
    if missing:
        yield block.new_zeros(*block.shape[:-1], missing)


def encode_audio_file(
    codec: Codec,
    file: Source,
    n_codebooks: int | None = None,
    *,
    grid: GridChoice = None,
    level: float | None = None,
    bitrate: float | None = None,
    name: str | None = None,
    progress: bool = True,
) -> EncodedAudio:
    """Encode an audio file of any length and rate.

    A codec with several channels gets those of the file, or copies of its only one. Other codecs
    get the mean of the channels.

    Args:
        file, name: as for `open_blocks`.
        n_codebooks, grid, level, bitrate: as for `encode_blocks`.
        progress: show a progress bar after `BAR_DELAY` seconds.
    Raises:
        AudioError: as `read_audio`. A file must have one channel or those of the codec, unless the
            codec is mono.
        ValueError: as `encode_blocks`.
    """
    rate = codec.spec.sample_rate
    with (
        open_blocks(file, sample_rate=rate, name=name, channels=codec.spec.channels) as blocks,
        audio_bar(blocks.seconds, progress) as bar,
    ):

        def counted() -> Iterator[Tensor]:
            for block in blocks:
                yield block
                bar.update(block.shape[-1] / rate)

        encoded = encode_blocks(
            codec, counted(), n_codebooks, grid=grid, level=level, bitrate=bitrate
        )
        return EncodedAudio(encoded, blocks.n_samples, blocks.channels)


def decode_audio_file(
    codec: Codec,
    codes: Tensor,
    n_samples: int,
    path: str | Path | BinaryIO,
    side: Side | None = None,
    *,
    channels: int = 1,
    format: str | None = None,
    kbps: float | None = None,
    stable: bool | StableDecoding = False,
    progress: bool = True,
) -> DecodedAudio:
    """Decode codes [1, k, T] into a file of a format that `AudioWriter` writes.

    Args:
        n_samples, side, stable: as for `Codec.decode`. Stable decoding takes the memory of a few
            windows.
        channels: 1 averages the channels of the codec; more keeps them.
        path, format, kbps: as for `AudioWriter`.
        progress: show a progress bar after `BAR_DELAY` seconds.
    Raises:
        ValueError: as `decode_blocks` or `AudioWriter`, or `stable` for a codec that has none.
    """
    rate, reached = codec.spec.sample_rate, None
    blocks = decode_blocks(codec, codes, n_samples, side, mono=channels == 1)
    if stable is not False:
        refuse_depth(side)
        settings = StableDecoding() if stable is True else stable
        lead = leads_in(side, 1, codec.spec)[0]
        plain = decode_blocks(codec, codes, lead + n_samples)
        found = stable_blocks(cast(Searchable, codec), codes, plain, lead + n_samples, settings)
        tally = Tally(codec, codes, settings, lead)
        blocks = drop_first(tally.counted(found), lead)
    with (
        AudioWriter(path, rate, format=format, kbps=kbps) as writer,
        audio_bar(n_samples / rate, progress) as bar,
    ):
        for block in blocks:
            writer.write(block[0])
            bar.update(block.shape[-1] / rate)
        if stable is not False:
            reached = tally.finish()
    return DecodedAudio(writer.clipped, reached)


def audio_bar(seconds: float | None, progress: bool) -> ProgressBar:
    """Return a progress bar of seconds of audio, shown after `BAR_DELAY` seconds.

    Args:
        seconds: length of the audio; None if it is not known.
        progress: show the bar.
    """
    total = None if seconds is None else round(seconds, 1)
    return progress_bar("audio", total=total, unit="s", delay=BAR_DELAY, show=progress)


def _collect(codec: Codec | ContinuousCodec, blocks: Iterable[Tensor], reason: WholeOnly) -> Tensor:
    """Join blocks to one waveform [1, C, N]."""
    pieces, missing = [], WHOLE_SECONDS * codec.spec.sample_rate
    for block in check_blocks(blocks, codec.spec.channels, codec.device):
        missing -= block.shape[-1]
        if missing < 0:
            raise TooLong(
                f"audio of more than {WHOLE_SECONDS / 60:g} minutes, and {reason}"
            ) from reason
        pieces.append(block)
    if not pieces:
        raise ValueError("0 samples in all blocks: nothing to encode")
    return torch.cat(pieces, dim=-1)
