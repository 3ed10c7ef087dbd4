"""Audio of any length in constant memory, and audio that is not over yet.

    encoded = encode_blocks(codec, blocks)             # the codes of codec.encode, bit for bit
    for audio in decode_blocks(codec, codes, n): ...   # the audio of codec.decode

    stream = CodecStream(codec)                          # live: [1, 1, n] in, [1, 1, m] out
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
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from tokgen.codec.base import Codec
from tokgen.codec.checks import (
    check_blocks,
    check_codes,
    check_levels,
)
from tokgen.codec.spec import Encoded

# -- long audio ----------------------------------------------------------------


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
        blocks = check_blocks([waveform], self._codec.spec.channels, self._codec.device)
        found = [self._coder.push(block) for block in blocks]
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


def _check_open(ended: bool) -> None:
    if ended:
        raise ValueError("the stream has ended: make another one with CodecStream(codec)")
