"""Audio of any length in constant memory, and audio that is not over yet.

    encoded = encode_blocks(codec, blocks)             # the codes of codec.encode, bit for bit
    for audio in decode_blocks(codec, codes, n): ...   # the audio of codec.decode

    stream = codec.stream()                            # live: [1, 1, n] in, [1, 1, m] out
    for block in microphone:
        speaker.play(stream.push(block))
    speaker.play(stream.finish())

Blocks of any size go through the windows that whole files go through: the codes are equal by
construction, and memory holds them and one window. Codecs that need the whole utterance have
their blocks collected, up to `WHOLE_SECONDS`, and raise `WholeOnly` for a stream.

A stream codes a frame as soon as all that it depends on is there, in windows of its own, which
take as much of the past as they need to round like large ones do. On a CPU that made the codes
of the STFT codec and of DAC those of the whole file; behind EnCodec's LSTM, and on a GPU, rounding
differs in the last bits, and with it a code where two rows of a codebook are equally near. What a
stream costs falls with its `step`: with 1, every frame is coded from a window of 65.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from tokgen.audio.files import AudioWriter, open_blocks
from tokgen.codec.base import Codec, Encoded, Side, WholeOnly
from tokgen.codec.blocks import BlockDecoder
from tokgen.codec.checks import check_codes, check_levels, check_n_samples, check_waveform

WHOLE_SECONDS = 1200  # of audio that is collected for a codec that needs all of it at once
BAR_DELAY = 5  # seconds without a progress bar


# -- long audio ----------------------------------------------------------------


class TooLong(ValueError):
    """Audio that a codec would have to hold whole, and that is too long for that."""


@torch.no_grad()
def encode_blocks(
    codec: Codec, blocks: Iterable[Tensor], n_codebooks: int | None = None
) -> Encoded:
    """Encode audio that comes in blocks, such as `tokgen.audio.files.open_blocks` gives.

    Args:
        blocks: float [1, n] or [1, C, n] each at the codec's rate, any n.
        n_codebooks: levels to keep; None keeps all K.
    Returns:
        codes [1, K, T] and side information, equal to those of `codec.encode_with_side`.
    Raises:
        ValueError: no audio, blocks that `encode` would refuse, or more than `WHOLE_SECONDS` of
            them for a codec that needs all of an utterance at once.
    """
    keep = check_levels(n_codebooks, codec.spec)
    try:
        encoder = codec.block_encoder()
    except WholeOnly as reason:
        return codec.encode_with_side(_collect(codec, blocks, reason), keep)
    frames = bytearray()  # one block of memory that grows: many small ones would lie scattered
    side: dict[str, list[Tensor]] = {name: [] for name in codec.side_names}

    def take(found: Iterator[Encoded]) -> None:
        for piece in found:
            frames.extend(piece.codes[0, :keep].T.int().cpu().numpy().tobytes())
            for name, values in piece.side.items():
                side[name].append(values)

    for block in _checked(codec, blocks):
        take(encoder.push(block))
    take(encoder.finish())
    if not frames:
        raise ValueError("0 samples in all blocks: nothing to encode")
    codes = torch.frombuffer(frames, dtype=torch.int32).view(1, -1, keep).mT.contiguous()
    joined = {name: torch.cat(values, dim=-1) for name, values in side.items()}
    return Encoded(codes.to(codec.device).long(), joined)


def decode_blocks(
    codec: Codec,
    codes: Tensor,
    n_samples: int | None = None,
    side: Side | None = None,
    *,
    mono: bool = True,
) -> Iterator[Tensor]:
    """Decode codes to audio that is given out in blocks.

    Args:
        codes, n_samples, side, mono: as of `Codec.decode`, codes [1, k, T] of one item.
    Returns:
        waveform blocks float32 [1, 1, n], together equal to that of `codec.decode`.
    Raises:
        ValueError: as `Codec.decode`, or several items.
    """
    codes = check_codes(codes, codec.spec)
    if len(codes) != 1:
        raise ValueError(f"codes of {len(codes)} items: decode_blocks takes one, [1, k, T]")
    n_samples = check_n_samples(n_samples, codes.shape[-1], codec.spec)
    encoded = Encoded(codes.to(codec.device), codec.needed_side(side, codes))
    try:
        decoder = codec.block_decoder()
    except WholeOnly:
        return iter([codec.decode(codes, n_samples, side, mono=mono)])
    return _decoded(decoder, encoded, n_samples, mono)


@torch.no_grad()
def _decoded(
    decoder: BlockDecoder, encoded: Encoded, n_samples: int, mono: bool
) -> Iterator[Tensor]:
    missing, like = n_samples, torch.empty(0)
    for found in (decoder.push(encoded), decoder.finish()):
        for piece in found:
            like = (piece.mean(1, keepdim=True) if mono else piece)[..., :missing].float()
            missing -= like.shape[-1]
            if like.shape[-1]:
                yield like
    if missing:
        yield like.new_zeros(*like.shape[:-1], missing)


def encode_file(
    codec: Codec, path: str | Path, n_codebooks: int | None = None, *, progress: bool = True
) -> tuple[Encoded, int]:
    """Encode an audio file of any length and rate.

    Args:
        progress: whether to show a bar after some seconds.
    Returns:
        what `encode_blocks` gives, and the samples that were encoded, at the codec's rate.
    Raises:
        AudioError: as `read_audio`.
        ValueError: as `encode_blocks`.
    """
    rate = codec.spec.sample_rate
    with open_blocks(path, sample_rate=rate) as blocks, _bar(blocks.seconds, progress) as bar:

        def shown() -> Iterator[Tensor]:
            for block in blocks:
                yield block
                bar.update(block.shape[-1] / rate)

        return encode_blocks(codec, shown(), n_codebooks), blocks.n_samples


def decode_file(
    codec: Codec,
    codes: Tensor,
    n_samples: int,
    path: str | Path,
    side: Side | None = None,
    *,
    progress: bool = True,
) -> int:
    """Decode codes [1, k, T] into a .wav or .flac file.

    Args:
        n_samples, side: as of `Codec.decode`.
        progress: whether to show a bar after some seconds.
    Returns:
        how many samples lay outside [-1, 1] and were clipped.
    Raises:
        ValueError: as `Codec.decode`, or as `AudioWriter`.
    """
    rate = codec.spec.sample_rate
    blocks = decode_blocks(codec, codes, n_samples, side)
    with AudioWriter(path, rate) as writer, _bar(n_samples / rate, progress) as bar:
        for block in blocks:
            writer.write(block[0])
            bar.update(block.shape[-1] / rate)
    return writer.clipped


# -- live audio ----------------------------------------------------------------


class CodecStream:
    """Audio through a codec as it comes; `Codec.stream` makes it.

    What comes out, `finish` included, is as long as what went in, and has no delay: sample s is
    the codec's version of sample s. It comes late, though.

    Attributes:
        encoder, decoder: the halves, for a sender and a receiver.
        latency_samples: sample s is out as soon as s + latency_samples samples were pushed, and
            `start_samples` of them at least.
        start_samples: how many are needed before any comes out; more than the latency where a
            network mirrors the beginning of the audio.
    """

    def __init__(self, codec: Codec, n_codebooks: int | None = None, *, step: int = 1) -> None:
        self.encoder = StreamEncoder(codec, n_codebooks, step=step)
        self.decoder = StreamDecoder(codec)
        self.sample_rate, self._n_in, self._n_out = codec.spec.sample_rate, 0, 0
        longest = 60 * self.sample_rate + 2 * step * codec.spec.hop_length  # a minute is ample
        self.start_samples, self.latency_samples = _timing(self._ready, longest)

    @property
    def latency_seconds(self) -> float:
        return self.latency_samples / self.sample_rate

    def push(self, waveform: Tensor) -> Tensor:
        """waveform [1, 1, n], any n -> [1, 1, m], m = 0 while nothing more can be known."""
        out = self.decoder.push(self.encoder.push(waveform))
        self._n_in, self._n_out = self._n_in + waveform.shape[-1], self._n_out + out.shape[-1]
        return out

    def finish(self) -> Tensor:
        """The rest [1, 1, m], once the audio has ended."""
        last = self.decoder.push(self.encoder.finish())
        rest = torch.cat([last, self.decoder.finish()], dim=-1)
        return rest[..., : self._n_in - self._n_out]

    def _ready(self, n_samples: int) -> int:
        return self.decoder.ready(self.encoder.ready(n_samples))


class StreamEncoder:
    """Audio in, codes out, each frame as soon as all that it depends on is there."""

    def __init__(self, codec: Codec, n_codebooks: int | None = None, *, step: int = 1) -> None:
        if step < 1:
            raise ValueError(f"step = {step}: must be at least 1 frame")
        self._codec, self._keep = codec, check_levels(n_codebooks, codec.spec)
        self._coder = codec.block_encoder(step)
        self.ready, self._ended = self._coder.ready, False

    @torch.no_grad()
    def push(self, waveform: Tensor) -> Encoded:
        """waveform [1, 1, n], any n -> codes [1, k, t] and side information of t >= 0 frames."""
        _check_open(self._ended)
        found = [self._coder.push(block) for block in _checked(self._codec, [waveform])]
        return self._join(piece for pieces in found for piece in pieces)

    @torch.no_grad()
    def finish(self) -> Encoded:
        """The rest, once the audio has ended."""
        _check_open(self._ended)
        self._ended = True
        return self._join(self._coder.finish())

    def _join(self, pieces: Iterable[Encoded]) -> Encoded:
        found = list(pieces)
        empty = torch.zeros(1, self._keep, 0, dtype=torch.long, device=self._codec.device)
        codes = [empty, *(piece.codes[:, : self._keep] for piece in found)]
        none = torch.zeros(1, 0, device=self._codec.device)
        side = {
            name: torch.cat([none, *(piece.side[name] for piece in found)], dim=-1)
            for name in self._codec.side_names
        }
        return Encoded(torch.cat(codes, dim=-1), side)


class StreamDecoder:
    """Codes in, audio out, each sample as soon as all that it depends on is there."""

    def __init__(self, codec: Codec) -> None:
        self._codec, self._coder = codec, codec.block_decoder(1)
        self.ready, self._ended = self._coder.ready, False
        self._n_frames = self._n_out = 0

    @torch.no_grad()
    def push(self, encoded: Encoded) -> Tensor:
        """codes [1, k, t], t >= 0, with their side information -> waveform [1, 1, m]."""
        _check_open(self._ended)
        if not encoded.codes.shape[-1]:
            return self._join([])
        codes = check_codes(encoded.codes, self._codec.spec).to(self._codec.device)
        self._n_frames += codes.shape[-1]
        return self._join(
            self._coder.push(Encoded(codes, self._codec.needed_side(encoded.side, codes)))
        )

    @torch.no_grad()
    def finish(self) -> Tensor:
        """The rest of what the frames hold, once they have ended."""
        _check_open(self._ended)
        self._ended = True
        n_samples = self._codec.spec.n_samples(self._n_frames) if self._n_frames else 0
        missing = n_samples - self._n_out
        rest = self._join(self._coder.finish())[..., :missing]
        return F.pad(rest, (0, missing - rest.shape[-1]))

    def _join(self, pieces: Iterable[Tensor]) -> Tensor:
        mono = [piece.mean(1, keepdim=True).float() for piece in pieces]
        out = torch.cat([torch.zeros(1, 1, 0, device=self._codec.device), *mono], dim=-1)
        self._n_out += out.shape[-1]
        return out


# -- what both share -----------------------------------------------------------


def _checked(codec: Codec, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Blocks [1, n] or [1, C, n] as [1, C, n] on the codec's device; empty ones left out."""
    for block in blocks:
        block = block[None] if block.ndim == 2 else block
        if block.shape[0] != 1:
            shape = tuple(block.shape)
            raise ValueError(f"block of shape {shape}: give one item, [1, n] or [1, C, n]")
        if block.shape[-1]:
            waveform = check_waveform(block, codec.spec.channels)
            yield waveform.expand(-1, codec.spec.channels, -1).to(codec.device)


def _collect(codec: Codec, blocks: Iterable[Tensor], reason: WholeOnly) -> Tensor:
    """Blocks as one waveform [1, C, N], for a codec that has to have it whole."""
    pieces, missing = [], WHOLE_SECONDS * codec.spec.sample_rate
    for block in _checked(codec, blocks):
        missing -= block.shape[-1]
        if missing < 0:
            raise TooLong(
                f"audio of more than {WHOLE_SECONDS / 60:g} minutes, and {reason}"
            ) from reason
        pieces.append(block)
    if not pieces:
        raise ValueError("0 samples in all blocks: nothing to encode")
    return torch.cat(pieces, dim=-1)


def _timing(ready: Callable[[int], int], longest: int) -> tuple[int, int]:
    """What is pushed before anything comes out, and how far samples lag behind after that."""

    def needed(sample: int) -> int:
        """Samples to push until this one is out."""
        return bisect_left(range(sample + longest), sample + 1, key=ready)

    start = needed(0)
    lag, done = 0, ready(start)
    for _ in range(3):  # what comes next comes at even distances
        lag, done = max(lag, needed(done) - done), ready(needed(done))
    return start, lag


def _bar(seconds: float | None, progress: bool) -> tqdm:
    total = None if seconds is None else round(seconds, 1)
    form = "{l_bar}{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}]" if total else None
    return tqdm(
        total=total, unit="s", desc="audio", delay=BAR_DELAY, bar_format=form, disable=not progress
    )


def _check_open(ended: bool) -> None:
    if ended:
        raise ValueError("the stream has ended: make another one with codec.stream()")
