"""Code live audio with `CodecStream`.

    stream = CodecStream(codec)      # [1, 1, n] in, [1, 1, m] out
    for block in microphone:
        speaker.play(stream.push(block))
    speaker.play(stream.finish())

A stream codes each frame as soon as everything that the frame depends on has arrived. Its windows
are at least 65 frames wide, so that they round like the large windows of a file. On a CPU, the
codes of the STFT codec and of DAC therefore equal those of the whole file. Behind EnCodec's LSTM,
and on a GPU, the last bits can differ, and so can a code if two codebook rows are equally near.

`codec.stream()` makes a stream of a causal codec. It computes frames alone or in chunks that do not
depend on the blocks, so any blocks give the same codes and audio, to the bit.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from tokgen.codec.checks import check_blocks, check_codes, check_levels
from tokgen.codec.depth import Rate
from tokgen.codec.spec import CodecSpec, Encoded, Side, join
from tokgen.codec.windows import BlockDecoder, BlockEncoder

__all__ = ["CodecStream", "StreamDecoder", "StreamEncoder", "Streamable"]


class Streamable(Protocol):
    """Interface of a codec for streams; every `Codec` has it."""

    spec: CodecSpec
    side_names: tuple[str, ...]
    rate: Rate | None

    @property
    def device(self) -> torch.device: ...

    def for_levels(self, n_codebooks: int) -> Self: ...

    def check_side(self, side: Side | None, codes: Tensor) -> Side: ...

    def block_encoder(self, step: int | None = None) -> BlockEncoder: ...

    def block_decoder(self, step: int | None = None) -> BlockDecoder: ...

    def live_encoder(self) -> BlockEncoder: ...

    def live_decoder(self) -> BlockDecoder: ...


class CodecStream:
    """Passes live audio through a codec.

    The output, with that of `finish`, is as long as the input. Output sample s is the codec's
    version of input sample s; it is available `latency_samples` later.

    Args:
        n_codebooks: levels to keep; None keeps all K.
        step: frames that are encoded together. With 1, each frame costs a window of 65.
        live: compute as `Codec.stream` describes; `step` then has no effect.
    Attributes:
        encoder, decoder: the two halves, for a sender and a receiver.
        latency_samples: sample s is available after s + latency_samples input samples, but not
            before `start_samples` of them.
        start_samples: input samples needed before the first output; above `latency_samples` only
            with reflect padding.
    Raises:
        WholeOnly: the codec needs the whole utterance.
        NotCausal: `live` for a codec that is not causal.
    """

    def __init__(
        self,
        codec: Streamable,
        n_codebooks: int | None = None,
        *,
        step: int = 1,
        live: bool = False,
    ) -> None:
        self.encoder = StreamEncoder(codec, n_codebooks, step=step, live=live)
        self.decoder = StreamDecoder(codec, live=live)
        self.sample_rate, self._n_in, self._n_out = codec.spec.sample_rate, 0, 0
        longest = 60 * self.sample_rate + 2 * step * codec.spec.hop_length  # a minute is ample
        self.start_samples, self.latency_samples = _timing(self._ready, longest)

    @property
    def latency_seconds(self) -> float:
        return self.latency_samples / self.sample_rate

    def push(self, waveform: Tensor) -> Tensor:
        """Add audio [1, 1, n] and return the output [1, 1, m] that is complete; n, m >= 0."""
        out = self.decoder.push(self.encoder.push(waveform))
        self._n_in, self._n_out = self._n_in + waveform.shape[-1], self._n_out + out.shape[-1]
        return out

    def finish(self) -> Tensor:
        """Return the remaining output [1, 1, m] at the end of the audio."""
        last = self.decoder.push(self.encoder.finish())
        rest = torch.cat([last, self.decoder.finish()], dim=-1)
        return rest[..., : self._n_in - self._n_out]

    def _ready(self, n_samples: int) -> int:
        return self.decoder.ready(self.encoder.ready(n_samples))


class StreamEncoder:
    """Encodes live audio. Arguments are those of `CodecStream`."""

    def __init__(
        self,
        codec: Streamable,
        n_codebooks: int | None = None,
        *,
        step: int = 1,
        live: bool = False,
    ) -> None:
        if step < 1:
            raise ValueError(f"step = {step}: must be at least 1 frame")
        self._codec, self._keep = codec, check_levels(n_codebooks, codec.spec)
        coder = codec.for_levels(self._keep)
        if coder.rate is not None and coder.rate.level is None:
            raise ValueError(
                f"bitrate = {coder.rate.bitrate:g}: it depends on the whole utterance, which a "
                "stream does not know; choose a level, as in codec.with_rate(level=1.0)"
            )
        self._coder = coder.live_encoder() if live else coder.block_encoder(step)
        self.ready, self._ended = self._coder.ready, False

    @torch.no_grad()
    def push(self, waveform: Tensor) -> Encoded:
        """Add audio [1, 1, n] and return the codes [1, k, t] that are complete; n, t >= 0.

        The audio is copied, so its memory can be used again.
        """
        _check_open(self._ended)
        blocks = list(check_blocks([waveform], self._codec.spec.channels, self._codec.device))
        self._ended = True  # stays so if the network fails
        found = self._join(piece for block in blocks for piece in self._coder.push(block))
        self._ended = False
        return found

    @torch.no_grad()
    def finish(self) -> Encoded:
        """Return the remaining codes at the end of the audio."""
        _check_open(self._ended)
        self._ended = True
        return self._join(self._coder.finish())

    def _join(self, pieces: Iterable[Encoded]) -> Encoded:
        device = self._codec.device
        codes = torch.zeros(1, self._keep, 0, dtype=torch.long, device=device)
        side = {name: torch.zeros(1, 0, device=device) for name in self._codec.side_names}
        kept = [Encoded(piece.codes[:, : self._keep], piece.side) for piece in pieces]
        return join([Encoded(codes, side), *kept])


class StreamDecoder:
    """Decodes live codes. Arguments are those of `CodecStream`."""

    def __init__(self, codec: Streamable, *, live: bool = False) -> None:
        self._codec = codec
        self._coder = codec.live_decoder() if live else codec.block_decoder(1)
        self.ready, self._ended = self._coder.ready, False
        self._n_frames = self._n_out = self._levels = 0

    @torch.no_grad()
    def push(self, encoded: Encoded) -> Tensor:
        """Add codes [1, k, t] with their side information and return the audio [1, 1, m].

        All codes of a stream have the same number k of levels.
        """
        _check_open(self._ended)
        if not isinstance(encoded, Encoded):
            raise TypeError(
                f"a {type(encoded).__name__}, not what StreamEncoder returns: pass Encoded(codes)"
            )
        if isinstance(encoded.codes, Tensor) and encoded.codes.shape[-1:] == (0,):
            return self._join([])
        codes = check_codes(encoded.codes, self._codec.spec).to(self._codec.device)
        n_items, levels, n_frames = codes.shape
        if n_items != 1:
            raise ValueError(
                f"codes of {n_items} items: a stream decodes one, [1, k, t]; make a stream for each"
            )
        if self._levels and levels != self._levels:
            raise ValueError(
                f"codes of {levels} levels after {self._levels}: must be the same in all of a "
                "stream; make another one for other codes"
            )
        side = self._codec.check_side(encoded.side, codes)
        side = {name: values.clone() for name, values in side.items()}
        self._ended = True  # stays so if the network fails
        audio = self._join(self._coder.push(Encoded(codes.clone(), side)))
        self._ended, self._levels = False, levels
        self._n_frames += n_frames
        return audio

    @torch.no_grad()
    def finish(self) -> Tensor:
        """Return the remaining audio at the end of the codes."""
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


def _timing(ready: Callable[[int], int], longest: int) -> tuple[int, int]:
    """Return the input samples before the first output, and the largest lag after that."""

    def needed(sample: int) -> int:
        """Return how many input samples make this output sample available."""
        return bisect_left(range(sample + longest), sample + 1, key=ready)

    start = needed(0)
    lag, done = 0, ready(start)
    for _ in range(3):  # later outputs come at even distances
        lag, done = max(lag, needed(done) - done), ready(needed(done))
    return start, lag


def _check_open(ended: bool) -> None:
    if ended:
        raise ValueError(
            "the stream has ended, by `finish` or by an error: make another one with "
            "codec.stream() or CodecStream(codec)"
        )
