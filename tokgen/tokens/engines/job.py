"""The work that every engine runs: read a unit of the corpus, encode it, store its shard."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokgen.audio.blocks import held_interrupts
from tokgen.audio.files import AudioError
from tokgen.codec.base import Codec
from tokgen.codec.continuous import ContinuousCodec
from tokgen.codec.depth import OutOfReach
from tokgen.codec.long_audio import TooLong
from tokgen.corpus.entries import Entry, Rejection
from tokgen.corpus.reading import Readable, Unit, check_loud
from tokgen.tokens.conditioning import Conditioning, ConditioningSettings
from tokgen.tokens.engines.encoding import (
    EncodedItem,
    as_array,
    encode_items,
    encode_long,
    for_levels,
)
from tokgen.tokens.precision import running_in
from tokgen.tokens.shards import Shard, ShardStore, TokenRow

__all__ = [
    "LONG_SECONDS",
    "PIECE_ROWS",
    "PIECE_SECONDS",
    "Job",
    "Loaded",
    "Piece",
    "Unfinished",
    "split_name",
]

LONG_SECONDS = 60.0  # longer audio is encoded in blocks and never held whole
PIECE_ROWS = 256  # rows that are read, then sorted by length and encoded
PIECE_SECONDS = 600.0  # seconds of audio that are read before they are encoded


@dataclass
class Loaded:
    """A decoded utterance."""

    entry: Entry
    samples: np.ndarray | None  # [C, N] float32; None if the audio is longer than LONG_SECONDS
    conditioning: np.ndarray | None = None  # float16 [T, C]


@dataclass
class Piece:
    """A part of a unit that has been read, perhaps in another process than the codec's."""

    unit: Unit
    loaded: list[Loaded] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    is_last: bool = False  # of the unit


@dataclass
class Unfinished:
    """Collects the rows of a unit while its pieces are encoded."""

    unit: Unit
    rows: list[TokenRow] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)


class Job:
    """Turns units into shards. Repeating a unit, on any machine, writes the same shard.

    Args:
        corpus, codec, store: to read from, encode with and write to.
        settings: of the conditioning; None for no conditioning.
        n_codebooks: levels to keep; 0 for latents.
        batch_seconds, device: as in `tokenize_corpus`.
        precision: one of `tokgen.tokens.precision.PRECISIONS`.
    Attributes:
        tell: called with the number of rows and their seconds after each batch.
    """

    def __init__(
        self,
        corpus: Readable,
        codec: Codec | ContinuousCodec,
        store: ShardStore,
        *,
        settings: ConditioningSettings | None,
        n_codebooks: int,
        batch_seconds: float,
        precision: str,
        device: str | None = None,
    ) -> None:
        self.corpus, self.store = corpus, store
        self.codec = for_levels(codec, n_codebooks)
        self.n_codebooks, self.batch_seconds = n_codebooks, batch_seconds
        self.precision = precision
        self.device = device or codec.device.type
        self.conditioning = None if settings is None else Conditioning(settings)
        self.rate, self.channels = codec.spec.sample_rate, codec.spec.channels
        self.tell: Callable[[int, float], None] = _ignore

    def __call__(self, unit: Unit) -> Shard:
        """Read, encode and store one unit."""
        work = Unfinished(unit)
        for piece in self.pieces(unit):
            self.encode(work, piece)
        return self.save(work)

    # -- pickling: a codec from the zoo is not sent but loaded again --------------

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "tell": _ignore}
        if self.codec.loaded_from is not None:
            settings = getattr(self.codec, "search", None), getattr(self.codec, "rate", None)
            state["codec"] = (*self.codec.loaded_from, self.codec.spec.weight_hash, *settings)
        return state

    def load_codec(self, device: str) -> None:
        """Load the codec, or move it to `device`; call this after unpickling the job.

        Raises:
            ValueError: this machine has other weights of the same name.
        """
        if not isinstance(self.codec, tuple):
            self.codec.to(device)
            return
        from tokgen.zoo.lookup import load_network

        name, revision, expected, search, rate = self.codec
        self.codec = load_network(name, revision=revision, device=device)
        if search is not None:
            self.codec = self.codec.with_beam(search.beam, search.distance)
        elif isinstance(self.codec, Codec) and self.codec.search is not None:
            self.codec = self.codec.with_beam(1)  # a saved codec may have a beam of its own
        if rate is not None:
            self.codec = self.codec.with_rate(level=rate.level, bitrate=rate.bitrate)
        self.codec = for_levels(self.codec, self.n_codebooks)
        found = self.codec.spec.weight_hash
        if found != expected:
            raise ValueError(
                f"codec {name!r} has weights {found[:12]} here and {expected[:12]} where the run "
                "began: give every machine the same zoo"
            )

    # -- reading -----------------------------------------------------------------

    def pieces(self, unit: Unit, entries: Iterable[Entry] | None = None) -> Iterator[Piece]:
        """Read a unit, or some of its entries, in pieces. This does not use the codec."""
        piece, seconds = Piece(unit), 0.0
        for entry in self.corpus.read_unit(unit) if entries is None else entries:
            if len(piece.loaded) >= PIECE_ROWS or seconds >= PIECE_SECONDS:
                yield piece
                piece, seconds = Piece(unit), 0.0
            try:
                with held_interrupts():
                    loaded = self._load(entry)
            except AudioError as error:
                piece.rejections.append(Rejection(error.source, error.reason))
            else:
                piece.loaded.append(loaded)
                n_samples = 0 if loaded.samples is None else loaded.samples.shape[-1]
                seconds += n_samples / self.rate
        piece.is_last = True
        yield piece

    def _load(self, entry: Entry) -> Loaded:
        if entry.seconds is not None and entry.seconds > LONG_SECONDS:
            return Loaded(entry, None)
        limit = LONG_SECONDS * self.rate
        parts, n_samples = [], 0
        with self.corpus.open(entry, self.rate, channels=self.channels) as blocks:
            for block in blocks:
                parts.append(block)
                n_samples += block.shape[-1]
                if n_samples > limit:
                    return Loaded(entry, None)
        waveform = torch.cat(parts, dim=-1)
        check_loud(entry, waveform.abs().max().item())
        loaded = Loaded(entry, waveform.numpy())
        if self.conditioning is not None:
            loaded.conditioning = _frames(self.conditioning(_mixed(waveform)[None]))
        return loaded

    # -- encoding ----------------------------------------------------------------

    def encode(self, work: Unfinished, piece: Piece) -> None:
        """Encode a piece and add its rows to `work`, in order."""
        rows: dict[int, TokenRow] = {}
        told = 0  # rejections that `_batches` counted as rows
        short = {i: x.samples for i, x in enumerate(piece.loaded) if x.samples is not None}
        with torch.inference_mode(), running_in(self.precision, self.codec.device):
            for batch, encoded in self._batches(piece, short):
                for i, e in zip(batch, encoded, strict=True):
                    loaded = piece.loaded[i]
                    about = short[i].shape[-1], loaded.conditioning
                    try:
                        rows[i] = self._row(loaded.entry, e, *about)
                    except AudioError as error:
                        piece.rejections.append(Rejection(error.source, error.reason))
                        told += 1
            for i, loaded in enumerate(piece.loaded):
                if i not in short:
                    try:
                        rows[i] = self._long_row(loaded.entry)
                    except AudioError as error:
                        piece.rejections.append(Rejection(error.source, error.reason))
        work.rows += [rows[i] for i in sorted(rows)]
        work.rejections += piece.rejections
        self.tell(len(piece.rejections) - told, 0.0)

    def save(self, work: Unfinished) -> Shard:
        """Store a unit after all its pieces are encoded."""
        return self.store.write(work.unit.index, work.rows, work.rejections)

    def _batches(
        self, piece: Piece, short: dict[int, np.ndarray]
    ) -> Iterator[tuple[Sequence[int], list[EncodedItem]]]:
        """Encode batches of similar length; yield one while the device encodes the next."""
        lengths = {i: samples.shape[-1] for i, samples in short.items()}
        order = sorted(short, key=lambda i: -lengths[i])
        pending = None
        while order:
            size = max(1, int(self.batch_seconds * self.rate / lengths[order[0]]))
            batch, order = order[:size], order[size:]
            batch, found = self._encode_batch(piece, batch, short)
            if not batch:
                continue
            encoded, ready = _start_copies(found)
            if pending is not None:
                pending[2]()
                yield pending[:2]
            pending = batch, encoded, ready
            self.tell(len(batch), sum(lengths[i] for i in batch) / self.rate)
        if pending is not None:
            pending[2]()
            yield pending[:2]

    def _encode_batch(
        self, piece: Piece, batch: list[int], short: dict[int, np.ndarray]
    ) -> tuple[list[int], list[EncodedItem]]:
        """Encode a batch; reject utterances on which a bitrate is out of reach."""
        try:
            waveforms = [torch.from_numpy(short[i]) for i in batch]
            return batch, encode_items(self.codec, waveforms)
        except OutOfReach as error:
            if len(batch) == 1:
                piece.rejections.append(Rejection(piece.loaded[batch[0]].entry.source, str(error)))
                return [], []
        each = [self._encode_batch(piece, [i], short) for i in batch]
        return [i for kept, _ in each for i in kept], [e for _, found in each for e in found]

    def _long_row(self, entry: Entry) -> TokenRow:
        """Encode long audio in blocks. The audio is read again for the conditioning.

        Raises:
            AudioError: the errors of `Readable.open`, silence, audio that is too long for a
                codec that needs the whole, or as `_row`.
        """
        peak, n_samples = 0.0, 0

        def heard(blocks: Iterable[Tensor]) -> Iterator[Tensor]:
            nonlocal peak, n_samples
            for block in blocks:
                peak = max(peak, block.abs().max().item())
                n_samples += block.shape[-1]
                yield block

        with self.corpus.open(entry, self.rate, channels=self.channels) as blocks:
            try:
                encoded = encode_long(self.codec, heard(blocks), self.n_codebooks)
            except (TooLong, OutOfReach) as error:
                raise AudioError(entry.source, str(error)) from error
        check_loud(entry, peak)
        conditioning = None
        if self.conditioning is not None:
            frames = bytearray()  # many small arrays would fragment the memory
            with self.corpus.open(entry, self.rate, channels=self.channels) as blocks:
                for part in self.conditioning.blocks(map(_mixed, blocks)):
                    frames += _frames(part).tobytes()
            conditioning = np.frombuffer(frames, np.float16)
            conditioning = conditioning.reshape(-1, self.conditioning.settings.n_features)
        row = self._row(entry, encoded, n_samples, conditioning)
        self.tell(1, n_samples / self.rate)
        return row

    def _row(
        self, entry: Entry, encoded: EncodedItem, n_samples: int, conditioning: np.ndarray | None
    ) -> TokenRow:
        """Return the row of an utterance.

        Raises:
            AudioError: float16 cannot hold its latents.
        """
        try:
            values = as_array(encoded.values, self.n_codebooks)
        except ValueError as error:
            raise AudioError(entry.source, str(error)) from error
        return TokenRow(
            id=entry.id,
            split=split_name(entry.split),
            values=values,
            n_samples=n_samples,
            text=entry.text,
            speaker=entry.speaker,
            conditioning=conditioning,
            side={name: values.cpu().numpy() for name, values in encoded.side.items()},
        )


def _start_copies(items: list[EncodedItem]) -> tuple[list[EncodedItem], Callable[[], None]]:
    """Start copies from a GPU; return them and a function that waits until they are complete."""
    if items[0].values.device.type != "cuda":
        return items, lambda: None

    def begin(values: Tensor) -> Tensor:
        here = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        return here.copy_(values, non_blocking=True)

    copies = [EncodedItem(begin(e.values), {k: begin(v) for k, v in e.side.items()}) for e in items]
    done = torch.cuda.Event()
    done.record()
    return copies, done.synchronize


def _mixed(waveform: Tensor) -> Tensor:
    """Return the mean [1, N] of the channels of a waveform [C, N]."""
    return waveform.mean(0, keepdim=True)


def _ignore(n_rows: int, seconds: float) -> None: ...


def _frames(coefficients: Tensor) -> np.ndarray:
    """Convert features [1, C, T] to float16 [T, C]."""
    return coefficients[0].T.numpy().astype(np.float16)


def split_name(name: str | None) -> str:
    """Return a valid split name for `datasets`: letters, digits and _.

    None becomes "train", and "all", which means every split there, becomes "all_".
    """
    valid = re.sub(r"\W+", "_", name or "train")
    return "all_" if valid == "all" else valid
