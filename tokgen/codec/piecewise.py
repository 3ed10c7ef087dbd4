"""Code audio that comes piece by piece: the methods of `Codec` for it, and `LiveCodec`."""

from __future__ import annotations

import copy
from collections.abc import Hashable
from functools import cache
from typing import Any, Self, cast

import torch
from torch import Tensor

from tokgen.codec.batches import encode_each
from tokgen.codec.checks import NotCausal, WholeOnly
from tokgen.codec.spec import CodecSpec, Encoded, Side, join
from tokgen.codec.streaming import CodecStream
from tokgen.codec.windows import BlockDecoder, BlockEncoder

__all__ = ["LiveCodec", "PiecewiseCodec"]


class PiecewiseCodec:
    """The part of `Codec` that takes audio piece by piece.

    Attributes:
        whole_reason: why the codec has no block coders, as a verb phrase for `WholeOnly`.
    """

    spec: CodecSpec
    whole_reason: str = "does not state how much context its network needs"

    def stream(self, n_codebooks: int | None = None) -> CodecStream:
        """Return a stream through this codec, which takes audio or codes in blocks of any sizes.

        The blocks do not change the result by a bit. It is `spec.latency_ms` late.

            stream = codec.stream()
            heard = stream.push(block)            # audio [1, 1, n] -> decoded audio [1, 1, m]
            sent = stream.encoder.push(block)     # or the sender alone: audio -> `Encoded`
            heard = stream.decoder.push(sent)     # and the receiver: `Encoded` -> audio

        Args:
            n_codebooks: levels to keep; None keeps all K.
        Raises:
            NotCausal: the codec looks ahead.
        """
        return CodecStream(cast(Any, self), n_codebooks, live=True)

    def live(self) -> Self:
        """Return this codec, with the same weights, that codes whole audio as `stream` does.

        The codes and the audio then equal those of a stream to the bit. For EnCodec and Mimi, whose
        `encode` and `decode` compute as transformers does, the last bits can differ.

        Raises:
            NotCausal: the codec looks ahead.
        """
        self.live_encoder()
        if isinstance(self, LiveCodec):
            return self
        codec: Any = copy.copy(self)
        codec.__class__ = _live_class(cast(Hashable, type(self)))
        codec.loaded_from = None  # `load_codec` makes the other one
        return codec

    def live_encoder(self) -> BlockEncoder:
        """Return the encoder of `stream`."""
        raise NotCausal(self.spec.name)

    def live_decoder(self) -> BlockDecoder:
        """Return the decoder of `stream`."""
        raise NotCausal(self.spec.name)

    def block_encoder(self, step: int | None = None) -> BlockEncoder:
        """Return an encoder that takes audio block by block.

        Args:
            step: frames that are yielded together, as soon as possible. None uses the windows of
                `_encode`, so that the codes equal those of `encode`.
        Raises:
            WholeOnly: the codec needs the whole utterance.
        """
        raise WholeOnly(self.spec.name, self.whole_reason)

    def block_decoder(self, step: int | None = None) -> BlockDecoder:
        """Return a decoder that takes codes block by block. See `block_encoder`."""
        raise WholeOnly(self.spec.name, self.whole_reason)


class LiveCodec(PiecewiseCodec):
    """A causal codec that codes whole audio as its streams do, item by item."""

    def block_encoder(self, step: int | None = None) -> BlockEncoder:
        return self.live_encoder()

    def block_decoder(self, step: int | None = None) -> BlockDecoder:
        return self.live_decoder()

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        def encode(audio: Tensor) -> Encoded:
            coder = self.live_encoder()
            return join([*coder.push(audio), *coder.finish()])

        return encode_each(cast(Any, self), waveform, lengths, encode)

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        return torch.cat([self._decode_item(item) for item in codes.split(1)])

    def _decode_item(self, codes: Tensor) -> Tensor:
        coder = self.live_decoder()
        return torch.cat([*coder.push(Encoded(codes)), *coder.finish()], dim=-1)


@cache
def _live_class(codec: Hashable) -> type:
    base = cast(type, codec)

    def reduce(self: Any) -> tuple[Any, ...]:
        return _restored, (base, self.__dict__)

    return type(f"Live{base.__name__}", (LiveCodec, base), {"__reduce__": reduce})


def _restored(base: type, state: dict[str, Any]) -> Any:
    """Return a copied or unpickled live codec, whose class has no name in a module."""
    codec: Any = object.__new__(_live_class(cast(Hashable, base)))
    codec.__dict__.update(state)
    return codec
