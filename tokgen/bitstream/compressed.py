"""Compress audio to .tgc bytes, and decompress them, whole or as a stream.

data = compress(waveform, "speech-16k")  # [1, N] at the codec's rate
decompress(data).waveform  # exactly codec.decode(codec.encode(...))
with CompressedWriter("live.tgc", codec) as writer:
    for block in microphone:
        writer.push(block)
for audio in CompressedReader("live.tgc"):  # [1, C, n], as soon as it is decoded
    ...
decompress("live.tgc", start=60, seconds=5).waveform  # decodes no more than this part needs
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self, TypeVar, Unpack

import numpy as np
import torch
from torch import Tensor

from tokgen.bitstream.decompressing import StreamAudio
from tokgen.bitstream.entropy_models import AUTO, choose_model
from tokgen.bitstream.named_codecs import NamedCodecs, as_named, codec_with_beam
from tokgen.bitstream.settings import BLOCK_SECONDS, Compression, frames_for, with_levels
from tokgen.bitstream.tgc.container import Block, TgcWriter
from tokgen.bitstream.tgc.entropy import EntropyModel
from tokgen.bitstream.tgc.layout import Header, short_hash
from tokgen.codec.base import Codec
from tokgen.codec.checks import WholeOnly, check_blocks
from tokgen.codec.long_audio import WHOLE_SECONDS, TooLong
from tokgen.codec.spec import DEPTH, Encoded
from tokgen.storage import write_file

__all__ = [
    "CompressedReader",
    "CompressedWriter",
    "Decompressed",
    "compress",
    "decompress",
]

_Found = TypeVar("_Found")


class Decompressed(NamedTuple):
    """Audio of a .tgc file, and its damage.

    Attributes:
        waveform: [1, C, N] float32.
        sample_rate: Hz.
        problems: what is damaged, and concealed by silence; empty if nothing is.
    """

    waveform: Tensor
    sample_rate: int
    problems: list[str]


class CompressedWriter:
    """Compresses audio that arrives in blocks.

    Used as a `with` statement, it is closed at the end unless there is an error.

    Args:
        file: .tgc file, written when the writer is closed, completely or not at all; or an open
            binary file, which gets each block as soon as it is complete, and stays open.
        codec: the codec, or its name as in `load_codec`.
        n_codebooks: levels to keep; None keeps all K. With a variable bitrate, the most levels.
        level: how a codec of variable bitrate chooses the levels of each frame, as in
            `Codec.with_rate`. None leaves the codec as it is.
        bitrate: kbps, in place of `n_codebooks` and `level`. The mean of a codec of variable
            bitrate: its blocks are written at the end, because it depends on the whole audio. The
            most kbps of packed codes of other codecs.
        beam: paths of a beam search, as in `Codec.with_beam`. None leaves the codec as it is.
        entropy: the entropy model, as for `tokgen.bitstream.entropy_models.choose_model`.
        block_seconds: length of blocks. Shorter ones lose less when damaged, and take more bits.
        n_samples: length of the audio, if it is known; a file that is cut off then keeps it.
        channels: channels of the decompressed audio: 1, or those of the codec.
        step: frames that are encoded together, for live audio. None uses the codec's windows, which
            are faster. On a CPU the codes are the same.
        device: device to load a codec on that is given by name.
    Attributes:
        n_bytes: bytes so far.
        mode: how codes become bits, one of `tokgen.bitstream.tgc.entropy.MODES`.
    Raises:
        ValueError: a setting is out of range, or the codec has no such model.
    """

    def __init__(
        self,
        file: str | Path | BinaryIO,
        codec: str | Path | Codec,
        *,
        n_codebooks: int | None = None,
        level: float | None = None,
        bitrate: float | None = None,
        beam: int | None = None,
        entropy: str | Path | EntropyModel = AUTO,
        block_seconds: float = BLOCK_SECONDS,
        n_samples: int | None = None,
        channels: int = 1,
        step: int | None = None,
        device: str | torch.device = "auto",
    ) -> None:
        self._path = Path(file) if isinstance(file, str | Path) else None
        self._file = io.BytesIO() if isinstance(file, str | Path) else file
        codec = codec_with_beam(codec, beam, device)
        codec, self._keep = with_levels(codec, n_codebooks, level, bitrate)
        if channels not in (1, codec.spec.channels):
            raise ValueError(f"channels = {channels}: {codec.spec.name} has {codec.spec.channels}")
        self._codec, self._channels, self._seconds = codec, channels, block_seconds
        self.mode, self._model = choose_model(codec, entropy)
        self._block_frames = frames_for(block_seconds, codec.spec, self._keep)
        self._writer: TgcWriter | None = None
        self._whole: list[Tensor] | None = None
        try:
            self._encoder = codec.for_levels(self._keep).block_encoder(step)
        except WholeOnly as reason:
            self._whole, self._reason = [], reason
        self._known, self.n_samples, self._ended = n_samples, 0, False

    @property
    def n_bytes(self) -> int:
        return 0 if self._writer is None else self._writer.n_bytes

    @torch.no_grad()
    def push(self, waveform: Tensor) -> None:
        """Add audio [1, n] or [1, C, n] at the codec's rate; n >= 0."""
        self._check_open()
        for block in check_blocks([waveform], self._codec.spec.channels, self._codec.device):
            self.n_samples += block.shape[-1]
            if self._whole is None:
                for piece in self._encoder.push(block):
                    self._write(piece)
                continue
            if self.n_samples > WHOLE_SECONDS * self._codec.spec.sample_rate:
                limit = f"audio of more than {WHOLE_SECONDS / 60:g} minutes"
                raise TooLong(f"{limit}, and {self._reason}") from self._reason
            self._whole.append(block)

    @torch.no_grad()
    def close(self) -> None:
        """Write what remains.

        Raises:
            ValueError: no audio.
        """
        self._check_open()
        self._ended = True
        if not self.n_samples:
            raise ValueError("0 samples in all blocks: nothing to encode")
        if self._whole is None:
            for piece in self._encoder.finish():
                self._write(piece)
        else:
            audio = torch.cat(self._whole, dim=-1)
            self._write(self._codec.encode_with_side(audio, self._keep))
        assert self._writer is not None
        self._writer.close(self.n_samples)
        if self._path is not None and isinstance(self._file, io.BytesIO):
            write_file(self._path, self._file.getvalue())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and not self._ended:
            self.close()

    def _write(self, piece: Encoded) -> None:
        side = {name: v[0].float().cpu().numpy() for name, v in piece.side.items()}
        if self._writer is None:
            rate = self._codec.rate
            at_end = self._whole is not None or (rate is not None and rate.level is None)
            n_samples = self.n_samples if at_end else self._known
            header = self._header(side, n_samples)
            self._writer = TgcWriter(self._file, header, self._model)
        self._writer.write(piece.codes[0, : self._keep].cpu().numpy().astype(np.int64), side)

    def _header(self, side: Mapping[str, np.ndarray], n_samples: int | None) -> Header:
        spec = self._codec.spec
        encoder = short_hash(spec.encoder_hash)
        in_blocks = {
            name: 1 if name == DEPTH else spec.chunk_length // spec.hop_length
            for name in self._codec.side_names
            if name == DEPTH or spec.chunk_length
        }
        return Header(
            codec=spec.name,
            weight_hash=short_hash(spec.weight_hash),
            mode=self.mode,
            model_hash="" if self._model is None else short_hash(self._model.model_hash),
            sample_rate=spec.sample_rate,
            hop_length=spec.hop_length,
            channels=self._channels,
            n_codebooks=self._keep,
            codebook_size=spec.codebook_size,
            block_frames=self._block_frames,
            n_samples=n_samples,
            side={name: v for name, v in side.items() if name not in in_blocks},
            side_periods=in_blocks,
            encoder_hash="" if spec.encoder_hash == spec.weight_hash else encoder,
        )

    def _check_open(self) -> None:
        if self._ended:
            raise ValueError("the writer is closed: make another one")


class CompressedReader:
    """Decompresses a file block by block, in bounded memory.

    Iterating yields audio [1, C, n]. Damaged blocks become silence. Streams that were concatenated
    follow one another. A time range is equal to that of the whole audio, to the bit on a CPU: its
    blocks are decoded, and as much around them as the codec's networks see.

    Args:
        file: .tgc file, or an open binary file, which need not be seekable.
        codec: the codec that made the codes, or its name as in `load_codec`; None is the zoo's
            codec that the file names. `NamedCodecs` share loaded codecs among readers.
        model: entropy model to use if the file names it, besides those of the codec.
        step: frames that are decoded together, for live audio; as for `CompressedWriter`.
        start: where the time range begins, in seconds of all streams.
        seconds: length of the time range; None is the rest.
        device: device to load a codec on that is given by name.
        name: name of the file for messages.
    Attributes:
        problems: what is damaged, so far.
        headers: headers of the streams, so far.
        n_samples: samples so far.
    Raises:
        FileNotFoundError: no such file.
        ValueError: while iterating: not a .tgc file, one of another codec, or one that ends before
            `start`.
    """

    def __init__(
        self,
        file: str | Path | BinaryIO,
        codec: str | Path | Codec | NamedCodecs | None = None,
        *,
        model: EntropyModel | None = None,
        step: int | None = None,
        start: float = 0.0,
        seconds: float | None = None,
        device: str | torch.device = "auto",
        name: str | None = None,
    ) -> None:
        self._name = name or (str(file) if isinstance(file, str | Path) else "the stream")
        if isinstance(file, str | Path) and not Path(file).is_file():
            raise FileNotFoundError(f"no such file: {self._name}")
        self._file = file
        self._audio = StreamAudio(as_named(codec, device), model, step, start, seconds)
        self.problems, self.headers = self._audio.problems, self._audio.headers

    @property
    def n_samples(self) -> int:
        return self._audio.n_samples

    def __iter__(self) -> Iterator[Tensor]:
        yield from self._read(self._audio.read)

    def blocks(self) -> Iterator[Block]:
        """Yield the codes of the frames that hold the time range, without decoding audio.

        Returns:
            blocks with codes int64 [k, t], and -1 if they are missing. Blocks before the range are
            not decoded. The frames of each stream are numbered from 0. After the last one,
            `n_samples` counts the samples of the streams that ended.
        Raises:
            ValueError: as while iterating.
        """
        yield from self._read(self._audio.blocks)

    def _read(self, read: Callable[[BinaryIO], Iterator[_Found]]) -> Iterator[_Found]:
        self.problems.clear()
        self.headers.clear()
        try:
            if isinstance(self._file, str | Path):
                with Path(self._file).open("rb") as file:
                    yield from read(file)
            else:
                yield from read(self._file)
        except ValueError as error:
            raise ValueError(f"{self._name}: {error}") from error


def compress(
    waveform: Tensor,
    codec: str | Path | Codec,
    *,
    device: str | torch.device = "auto",
    **settings: Unpack[Compression],
) -> bytes:
    """Compress audio of one item.

    Args:
        waveform: [1, N] or [1, C, N] float in [-1, 1] at the codec's rate. The channels are kept.
        codec, device: as for `CompressedWriter`.
        **settings: n_codebooks, level, bitrate, beam, entropy and block_seconds of
            `CompressedWriter`.
    Returns:
        the bytes of a .tgc file.
    Raises:
        TypeError, ValueError: as `Codec.encode` or `CompressedWriter`.
    """
    channels = waveform.shape[-2] if waveform.ndim == 3 else 1
    file = io.BytesIO()
    with CompressedWriter(
        file,
        codec,
        n_samples=waveform.shape[-1],
        channels=channels,
        device=device,
        **settings,
    ) as writer:
        writer.push(waveform)
    return file.getvalue()


def decompress(
    file: bytes | str | Path | BinaryIO,
    codec: str | Path | Codec | None = None,
    *,
    model: EntropyModel | None = None,
    start: float = 0.0,
    seconds: float | None = None,
    device: str | torch.device = "auto",
) -> Decompressed:
    """Decompress a file or a part. Arguments are those of `CompressedReader`, or the file's bytes.

    Raises:
        ValueError: as `CompressedReader`.
    """
    source = io.BytesIO(file) if isinstance(file, bytes) else file
    reader = CompressedReader(
        source, codec, model=model, start=start, seconds=seconds, device=device
    )
    pieces = [audio.cpu() for audio in reader]
    waveform = torch.cat(pieces, dim=-1) if pieces else torch.zeros(1, 1, 0)
    return Decompressed(waveform, reader.headers[0].sample_rate, reader.problems)
