"""Decode the events of a .tgc file to audio, and conceal what is missing."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

import torch
import torch.nn.functional as F
from torch import Tensor

from tokgen.bitstream.entropy_models import model_of
from tokgen.bitstream.named_codecs import NamedCodecs
from tokgen.bitstream.tgc.container import MAX_LOST_CODES, Block, Ended, cut_block, read_events
from tokgen.bitstream.tgc.entropy import EntropyModel
from tokgen.bitstream.tgc.layout import Header, short_hash
from tokgen.codec.aligned import leads_in
from tokgen.codec.base import Codec
from tokgen.codec.checks import WholeOnly
from tokgen.codec.identity import encodes_like, show_hashes
from tokgen.codec.spec import DEPTH, CodecSpec, Encoded, Side, join

__all__ = ["StreamAudio", "check_header"]

_QUIET_FRAMES = 64  # of zeros, whose middle frame stands for missing ones


def check_header(header: Header, codec: Codec) -> None:
    """Check that a codec made a stream, or one of which only the decoder differs.

    Raises:
        ValueError: another codec made it, or its numbers are not those of the codec.
    """
    spec = codec.spec
    hashes = short_hash(spec.weight_hash), short_hash(spec.encoder_hash)
    short = replace(spec, weight_hash=hashes[0], encoder_hash=hashes[1])
    if not encodes_like(header, short):
        ours, other = show_hashes(header, short)
        raise ValueError(
            f"made by codec {header.codec!r} ({ours}), not by {spec.name!r} ({other}): use "
            f"{header.codec!r}"
        )
    if header.has_depth and not codec.variable:
        raise ValueError(
            f"a stream of variable depth, but {spec.name!r} has no variable bitrate: use the codec "
            f"that made it, {header.codec!r}"
        )
    names = set(codec.side_names) - {DEPTH}
    periods = {n: spec.chunk_length // spec.hop_length for n in names if spec.chunk_length}
    periods |= {DEPTH: 1} if header.has_depth else {}
    for what, found, right in (
        ("Hz", header.sample_rate, spec.sample_rate),
        ("samples per frame", header.hop_length, spec.hop_length),
        ("entries per level", header.codebook_size, spec.codebook_size),
        ("levels", header.n_codebooks, min(header.n_codebooks, spec.n_codebooks)),
        ("channels", header.channels, 1 if header.channels == 1 else spec.channels),
        ("frames per value", dict(header.side_periods), periods),
    ):
        if found != right:
            raise ValueError(
                f"{what} {found}, but {spec.name!r} has {right}: compress the audio again"
            )
    leads_in(_tensors(header), 1, spec)


class StreamAudio:
    """Reads a time range of a file: its audio or its codes.

    Args:
        codecs: the codecs that made the streams.
        model, step, start, seconds: as for `tokgen.bitstream.compressed.CompressedReader`.
    Attributes:
        problems, headers, n_samples: as for `CompressedReader`.
    """

    def __init__(
        self,
        codecs: NamedCodecs,
        model: EntropyModel | None = None,
        step: int | None = None,
        start: float = 0.0,
        seconds: float | None = None,
    ) -> None:
        if not 0 <= start < math.inf:
            raise ValueError(f"start is {start:g} s, but must be at least 0; leave it out for all")
        if seconds is not None and not 0 < seconds < math.inf:
            raise ValueError(f"seconds is {seconds:g}, but must be above 0")
        self._codecs, self._model, self._step = codecs, model, step
        self._start, self._end = start, math.inf if seconds is None else start + seconds
        self.problems: list[str] = []
        self.headers: list[Header] = []
        self.n_samples = 0

    def read(self, file: BinaryIO) -> Iterator[Tensor]:
        """Yield the audio [1, C, n] of the range."""
        decoder: _Decoder | None = None
        before, end = 0, math.inf  # samples of the streams before, and the end of the range
        self.n_samples = 0

        def begin(header: Header) -> int:
            nonlocal decoder, end
            start, end = self._open(header)
            codec, skip = self._codec_for(header), max(0, start - before)
            end -= start
            decoder = _Decoder(header, codec, self._step, self.problems, skip)
            return decoder.first_frame

        for event in read_events(file, self._find_model, begin):
            if isinstance(event, Header):
                continue
            assert decoder is not None
            for audio in decoder.block(event) if isinstance(event, Block) else decoder.end(event):
                n = int(min(audio.shape[-1], end - self.n_samples))
                if n > 0:
                    self.n_samples += n
                    yield audio[..., :n]
            if self.n_samples >= end:
                return
            before += decoder.length
        self._check_range(self.n_samples, before)

    def blocks(self, file: BinaryIO) -> Iterator[Block]:
        """Yield the codes of the frames that hold the range."""
        first, last = 0, math.inf
        before, end, found = 0, math.inf, 0

        def begin(header: Header) -> int:
            nonlocal first, last, end
            start, end = self._open(header)
            spec = self._codec_for(header).spec
            lead = leads_in(_tensors(header), 1, spec)[0]
            first, last = _frames(spec, max(0, start - before) + lead, end - before + lead)
            return first

        for event in read_events(file, self._find_model, begin):
            if isinstance(event, Block) and event.first_frame < last:
                block = cut_block(event, self.headers[-1], first, last)
                found += block.codes.shape[1]
                if block.problem:
                    self.problems.append(_loss(block))
                yield block
            elif isinstance(event, Ended):
                before += _length(event, self.headers[-1], self._codec_for(self.headers[-1]).spec)
                self.n_samples = before
                if event.problem:
                    self.problems.append(event.problem)
            if before >= end or (isinstance(event, Block) and event.first_frame >= last):
                return
        self._check_range(found, before)

    def _open(self, header: Header) -> tuple[int, float]:
        """Note the header of the next stream; returns the range in samples."""
        if self.headers and header.sample_rate != self.headers[0].sample_rate:
            raise ValueError(
                f"a stream of {header.sample_rate} Hz follows one of "
                f"{self.headers[0].sample_rate} Hz: cut the file before it"
            )
        if self.headers and header.channels != self.headers[0].channels:
            raise ValueError("streams of different channels: cut the file between them")
        self.headers.append(header)
        rate = header.sample_rate
        end = self._end if self._end == math.inf else round(self._end * rate)
        return round(self._start * rate), end

    def _check_range(self, found: int, n_samples: int) -> None:
        if self._start and not found:
            raise ValueError(
                f"start is {self._start:g} s, but the audio has "
                f"{n_samples / self.headers[0].sample_rate:.2f} s"
            )

    def _codec_for(self, header: Header) -> Codec:
        codec = self._codecs.find(header.codec)
        check_header(header, codec)
        return _with_all_levels(codec)

    def _find_model(self, header: Header) -> EntropyModel | None:
        return model_of(header, self._codec_for(header), self._model)


class _Decoder:
    """Decodes the blocks of one stream. Samples are counted from the lead of the first frame.

    Args:
        start: samples at the beginning to leave out.
    Attributes:
        first_frame: frame to begin with.
        length: samples of the whole stream, when it has ended; 0 before.
    """

    def __init__(
        self, header: Header, codec: Codec, step: int | None, problems: list[str], start: int
    ) -> None:
        self._header, self._codec, self._problems = header, codec, problems
        self._lead = leads_in(_tensors(header), 1, codec.spec)[0]
        self._skip = self._lead + start
        self._whole: list[Encoded] | None = None
        self.first_frame = self._first_sample = self.length = 0
        try:
            self._decoder = codec.block_decoder(step)
            self.first_frame, self._first_sample = self._decoder.skip(self._skip)
        except WholeOnly:
            self._whole = []
        self._audio = torch.zeros(1, header.channels, 0, device=codec.device)  # to release
        self._n_frames, self._n_released = self.first_frame, self._first_sample
        self._quiet: Tensor | None = None

    @torch.no_grad()
    def block(self, block: Block) -> Iterator[Tensor]:
        """Yield the audio that is complete with a block."""
        block = cut_block(block, self._header, self.first_frame)
        side = {name: torch.from_numpy(values)[None] for name, values in block.side.items()}
        encoded = Encoded(torch.from_numpy(block.codes)[None], side)
        if block.problem:
            self._problems.append(_loss(block))
            encoded = self._silence(encoded.codes.shape[-1], side)
        yield from self._push(encoded)

    @torch.no_grad()
    def end(self, ended: Ended) -> Iterator[Tensor]:
        """Yield the rest of the audio."""
        spec, n_samples = self._codec.spec, ended.n_samples
        if ended.problem:
            self._problems.append(ended.problem)
        self.length = _length(ended, self._header, spec)
        if n_samples is not None:
            yield from self._pad(spec.n_frames(n_samples + self._lead))
        if self._n_frames == self.first_frame:
            return
        total = self.length + self._lead
        if total < self._n_released > self._first_sample:
            self._problems.append(f"{n_samples} samples, but its frames hold more")
        if self._whole is not None:
            yield from self._decode_whole()
            return
        for piece in self._decoder.finish():
            self._take(piece)
        missing = total - self._n_released - self._audio.shape[-1]
        self._audio = F.pad(self._audio, (0, max(0, missing)))
        yield from self._release(total)

    def _pad(self, n_frames: int) -> Iterator[Tensor]:
        """Add silence up to `n_frames` frames, if a file was cut off."""
        first, n = self._n_frames, n_frames - self._n_frames
        if n <= 0:
            return
        if n * self._header.n_codebooks > MAX_LOST_CODES:
            self._problems.append(f"frames {first}..{n_frames - 1} are lost, and left out")
            return
        self._problems.append(f"frames {first}..{n_frames - 1} are lost: cut off")
        counts = self._header.side_counts(first, n)
        side = {name: torch.zeros(1, count) for name, count in counts.items()}
        yield from self._push(self._silence(n, side))

    def _push(self, encoded: Encoded) -> Iterator[Tensor]:
        self._n_frames += encoded.codes.shape[-1]
        if self._whole is not None:
            self._whole.append(encoded)
            return
        spec, codes = self._codec.spec, encoded.codes.to(self._codec.device)
        side = self._codec.check_side(encoded.side, codes)
        for piece in self._decoder.push(Encoded(codes, side)):
            self._take(piece)
        last = spec.chunk_stride or spec.hop_length  # samples that the end may cut
        yield from self._release(spec.n_samples(self._n_frames) - last)

    def _decode_whole(self) -> Iterator[Tensor]:
        encoded = join(self._whole or [])
        side = {**_tensors(self._header), **encoded.side}
        mono = self._header.channels == 1
        audio = self._codec.decode(encoded.codes, self.length, side, mono=mono)
        yield audio[..., self._skip - self._lead :]

    def _take(self, piece: Tensor) -> None:
        audio = piece.mean(1, keepdim=True) if self._header.channels == 1 else piece
        self._audio = torch.cat([self._audio, audio.float()], dim=-1)

    def _release(self, end: int) -> Iterator[Tensor]:
        """Yield what is decoded up to sample `end`, without what is left out."""
        n = max(0, min(end - self._n_released, self._audio.shape[-1]))
        audio, self._audio = self._audio[..., :n], self._audio[..., n:]
        yield audio[..., max(0, self._skip - self._n_released) :]
        self._n_released += n

    def _silence(self, n: int, side: Side) -> Encoded:
        """Return codes [1, k, n] of silence, of all levels, with other side information."""
        if self._quiet is None:
            spec = self._codec.spec
            n_zeros = spec.chunk_length or _QUIET_FRAMES * spec.hop_length
            codes = self._codec.encode(torch.zeros(1, 1, n_zeros), self._header.n_codebooks)
            self._quiet = codes[..., codes.shape[-1] // 2, None].cpu()
        codes = self._quiet.expand(-1, -1, n)
        depth = {DEPTH: torch.full((1, n), float(codes.shape[1]))} if DEPTH in side else {}
        return Encoded(codes, {**side, **depth})


def _with_all_levels(codec: Codec) -> Codec:
    """Return a codec without its rate: streams tell the depth of their frames, if it varies."""
    if codec.rate is None:
        return codec
    codec = copy.copy(codec)
    codec.rate, codec.side_names = None, tuple(n for n in codec.side_names if n != DEPTH)
    return codec


def _frames(spec: CodecSpec, start: int, end: float) -> tuple[int, float]:
    """Return the first frame that holds samples `start` to `end`, and the one after the last."""
    size, stride, n = spec.hop_length, spec.hop_length, 1
    if spec.chunk_length:
        size, stride, n = spec.chunk_length, spec.chunk_stride, spec.chunk_length // size
    first = max(0, start // stride - (size - 1) // stride) * n
    return first, end if end == math.inf else -(-int(end) // stride) * n


def _length(ended: Ended, header: Header, spec: CodecSpec) -> int:
    """Return the number of samples of a stream, with those that are missing at its end."""
    lead = leads_in(_tensors(header), 1, spec)[0]
    n_frames = ended.n_frames
    if ended.n_samples is None:
        return max(0, spec.n_samples(n_frames) - lead)
    wanted = spec.n_frames(ended.n_samples + lead)
    if (wanted - n_frames) * header.n_codebooks <= MAX_LOST_CODES:
        n_frames = max(n_frames, wanted)
    return max(0, min(spec.n_samples(n_frames) - lead, ended.n_samples))


def _loss(block: Block) -> str:
    last = block.first_frame + block.codes.shape[1] - 1
    return f"frames {block.first_frame}..{last} are lost: {block.problem}"


def _tensors(header: Header) -> dict[str, Tensor]:
    return {name: torch.from_numpy(values)[None] for name, values in header.side.items()}
