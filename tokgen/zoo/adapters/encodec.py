"""EnCodec as transformers runs it (Défossez et al. 2022, "High Fidelity Neural Audio Compression").

The model at 24 kHz is causal and mono. The model at 48 kHz is stereo and codes chunks of one second
that overlap by 1 %; the last chunk is padded with zeros, and the codes of the chunks are
concatenated along T. Each chunk is divided by its loudness; these scales are side information. The
default bandwidth is the highest, while that of transformers is the lowest.

Every item is encoded alone, at its true length: at 24 kHz in windows that overlap by the receptive
field of the convolutions, with an LSTM that keeps its state, and at 48 kHz chunk by chunk. The
importance of a variable bitrate is computed in the same windows or chunks.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from tokgen.codec.batches import encode_each
from tokgen.codec.checks import check_layout
from tokgen.codec.chunks import Chunks, OverlapAdd
from tokgen.codec.depth import Allocating, Rate, append_depth, append_row, split_row
from tokgen.codec.spec import DEPTH, CodecSpec, Encoded, Side, join
from tokgen.codec.stages import StagedCodec
from tokgen.codec.steps import Frames
from tokgen.codec.windows import (
    BlockDecoder,
    BlockEncoder,
    Reach,
    Stage,
    Windows,
    decoder_reach,
    encoder_reach,
)
from tokgen.quantizers.beam import SearchedLevels
from tokgen.zoo.adapters.carried import Carried, geometry, is_causal
from tokgen.zoo.loading import TransformersCodec, choose_bandwidth, let_gradients_through

if TYPE_CHECKING:
    from transformers import EncodecModel

    from tokgen.zoo.adapters.encodec_variable import VariableEncodec

__all__ = [
    "MAX_CHUNK_SECONDS",
    "MAX_OVERLAP",
    "WINDOW_SECONDS",
    "EncodecCodec",
    "StagedEncodecCodec",
    "normalised",
]

WINDOW_SECONDS = 20.0
MAX_CHUNK_SECONDS = 60
MAX_OVERLAP = 0.9  # of a chunk with the next one


class EncodecCodec(SearchedLevels, TransformersCodec):
    """`transformers.EncodecModel` as a `Codec`. See also `StagedEncodecCodec`.

    Attributes:
        window_frames: frames per window of the convolutions.
        in_pieces: False if the codec needs the whole utterance.
        side_names: ("scales",) if the model normalises, one value per chunk.
    """

    model: EncodecModel
    model_class = "EncodecModel"
    decoder_parts = ("decoder.",)

    @classmethod
    def network_class(cls, config: dict[str, Any]) -> Any:
        if config.get("importance") is None:
            return super().network_class(config)
        from tokgen.zoo.adapters.encodec_variable import VariableEncodec

        return VariableEncodec

    @staticmethod
    def numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
        kbps = config["target_bandwidths"]
        chosen = choose_bandwidth(kbps, bandwidth)
        rate, hop_length = config["sampling_rate"], math.prod(config["upsampling_ratios"])
        level = math.ceil(rate / hop_length) * math.log2(config["codebook_size"])  # bits per second
        numbers = {
            "sample_rate": rate,
            "hop_length": hop_length,
            "n_codebooks": max(1, int(1000 * min(chosen, kbps[-1]) // level)),
            "codebook_size": config["codebook_size"],
            "channels": config["audio_channels"],
            "latency_samples": hop_length if is_causal(config) else 0,
        }
        if seconds := config["chunk_length_s"]:
            overlap = config["overlap"] or 0.0
            if not 0 < seconds <= MAX_CHUNK_SECONDS or not 0 <= overlap <= MAX_OVERLAP:
                raise ValueError(
                    f"chunk_length_s = {seconds}, overlap = {overlap}: at most {MAX_CHUNK_SECONDS} "
                    f"s and {MAX_OVERLAP}"
                )
            numbers["chunk_length"] = length = int(seconds * rate)
            numbers["chunk_stride"] = max(1, int((1.0 - overlap) * length))
        return numbers

    @classmethod
    def class_for(cls, config: dict[str, Any]) -> type[EncodecCodec]:
        chunks = config["chunk_length_s"] or config["normalize"] or config["audio_channels"] > 1
        return EncodecCodec if chunks else StagedEncodecCodec

    def __init__(self, model: EncodecModel, spec: CodecSpec) -> None:
        super().__init__(model, spec)
        self.side_names = ("scales",) if model.config.normalize else ()
        self.window_frames = max(1, round(WINDOW_SECONDS * spec.frame_rate))
        layers_apart = model.config.norm_type == "weight_norm"
        self.in_pieces = bool(spec.chunk_length) or (layers_apart and not self.side_names)
        if not self.in_pieces:
            normalised = "the audio" if self.side_names else "its layers"
            self.whole_reason = f"normalises {normalised} over all of an utterance"

    def side_length(self, name: str, n_samples: int) -> int:
        if name == "scales":
            return self.spec.n_chunks(n_samples)
        return super().side_length(name, n_samples)

    @property
    def variable(self) -> bool:
        return getattr(self.model, "importance", None) is not None

    @property
    def _network(self) -> VariableEncodec:
        return cast("VariableEncodec", self.model)

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        return encode_each(self, waveform, lengths, self._encode_alone)

    def _encode_with_importance(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        def encode(audio: Tensor) -> Encoded:
            joined = self._encode_alone(audio, importance=True)
            found = split_row(joined.codes)
            return Encoded(found.codes, {**joined.side, **found.side})

        return encode_each(self, waveform, lengths, encode)

    def _encode_alone(self, waveform: Tensor, *, importance: bool = False) -> Encoded:
        """Encode one item, with the importance as one more row as by `append_row` if asked."""
        if self.in_pieces:
            coder = self._block_encoder(None, importance)
            return join([*coder.push(waveform), *coder.finish()])
        side: dict[str, Tensor] = {}
        if self.model.config.normalize:
            waveform, side["scales"] = normalised(waveform)
        return Encoded(self._codes(waveform, importance), side)

    def _codes(self, waveform: Tensor, importance: bool) -> Tensor:
        """Encode a waveform [B, C, N] in one piece; see `_encode_alone`."""
        if importance:
            return self._joined(*self._network.encode_with_importance(waveform))
        return self.quantize(self.model.encoder(waveform))

    def _joined(self, latents: Tensor, importance: Tensor) -> Tensor:
        return append_row(self.quantize(latents), importance)

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        scales = side.get("scales")
        if self.in_pieces:
            coder = self.block_decoder()
            return torch.cat([*coder.push(Encoded(codes, side)), *coder.finish()], dim=-1)
        audio = self.model.decoder(self._dequantized(self._with_depth(Encoded(codes, side))))
        return audio if scales is None else audio * scales[..., None]

    def _with_depth(self, encoded: Encoded) -> Tensor:
        """Return codes [B, k, T] with the depth as one more row, if the codec is variable."""
        return append_depth(encoded) if self.variable else encoded.codes

    def _dequantized(self, codes: Tensor) -> Tensor:
        """Dequantize what `_with_depth` returns."""
        if self.variable:
            return self.dequantize_to(codes[:, :-1], codes[:, -1])
        return self.dequantize(codes)

    def block_encoder(self, step: int | None = None) -> BlockEncoder:
        if not self.in_pieces:
            return super().block_encoder(step)
        return self._block_encoder(step, self.rate is not None, self.rate)

    def _block_encoder(
        self, step: int | None, importance: bool, rate: Rate | None = None
    ) -> BlockEncoder:
        """Return an encoder to codes, or to what `append_row` returns, or to codes at a rate."""
        side: dict[str, list[Tensor]] = {}
        stages: list[Stage] = []
        if self.spec.chunk_length:
            stages.append(self._encoder_chunks(side, importance))
        else:
            stages += self._encoder_stages(step, importance)
        if rate is not None:
            stages.append(allocating := Allocating(rate, self.spec))
            side[DEPTH] = allocating.depths
        return BlockEncoder(*stages, side=side)

    def _encoder_stages(self, step: int | None, importance: bool) -> list[Stage]:
        before, lstm, after = _parts(self.model.encoder)

        def run(x: Tensor, first: int) -> Tensor:
            if importance:
                return self._joined(*self._network.finish(x))
            return self.quantize(after(x))

        reach = encoder_reach(*geometry(after))
        if importance:
            more = self._network.importance.reach
            reach = Reach(max(reach.before, more), max(reach.after, more), reach.first)
        first = encoder_reach(*geometry(before))
        return [
            self._windows(lambda x, _: before(x), first, step, hop_in=self.spec.hop_length),
            _Recurrent(lstm),
            self._windows(run, reach, None if step is None else 1),
        ]

    def block_decoder(self, step: int | None = None) -> BlockDecoder:
        if not self.in_pieces:
            return super().block_decoder(step)
        if self.spec.chunk_length:
            return self._chunk_decoder()
        before, lstm, after = _parts(self.model.decoder)
        hop = self.spec.hop_length
        return BlockDecoder(
            self._windows(
                lambda codes, _: before(self._dequantized(codes)),
                decoder_reach(*geometry(before)),
                step,
            ),
            _Recurrent(lstm),
            self._windows(
                lambda x, _: after(x),
                decoder_reach(*geometry(after)),
                None if step is None else 1,
                hop_out=hop,
            ),
            pack=self._with_depth,
        )

    def live_encoder(self) -> BlockEncoder:
        if not self.spec.latency_samples:
            return super().live_encoder()
        layers: Any = self.model.encoder.layers
        weights: dict[nn.Module, Tensor] = {}

        def run(audio: Tensor, states: list[Any] | None) -> tuple[Tensor, list[Any]]:
            carried = Carried(states or [], weights)
            return self.quantize(carried.run(layers, audio)), carried.after

        first = encoder_reach(*geometry(self.model.encoder)).first
        return BlockEncoder(Frames(run, hop_in=self.spec.hop_length, first=first))

    def live_decoder(self) -> BlockDecoder:
        if not self.spec.latency_samples:
            return super().live_decoder()
        layers: Any = self.model.decoder.layers
        weights: dict[nn.Module, Tensor] = {}

        def run(codes: Tensor, states: list[Any] | None) -> tuple[Tensor, list[Any]]:
            carried = Carried(states or [], weights)
            return carried.run(layers, self.dequantize(codes)), carried.after

        first = decoder_reach(*geometry(self.model.decoder)).first
        return BlockDecoder(Frames(run, hop_out=self.spec.hop_length, first=first))

    def _windows(
        self, run: Callable[[Tensor, int], Tensor], reach: Reach, step: int | None, **hops: int
    ) -> Windows:
        return Windows(run, reach, size=self.window_frames, step=step, **hops)

    def _encoder_chunks(self, side: dict[str, list[Tensor]], importance: bool) -> Chunks:
        """Return the stage that encodes chunks, and adds their scales to `side`."""
        s = self.spec
        scales: list[Tensor] = []
        if self.model.config.normalize:
            side["scales"] = scales

        def run(chunk: Tensor) -> Tensor:
            if self.model.config.normalize:
                chunk, scale = normalised(chunk)
                scales.append(scale)
            return self._codes(chunk, importance)

        return Chunks(run, s.chunk_length, s.chunk_stride, s.chunk_length // s.hop_length)

    def _chunk_decoder(self) -> BlockDecoder:
        s = self.spec
        scales: deque[Tensor] = deque()

        def take_side(side: Side) -> None:
            if self.model.config.normalize:
                scales.extend(side["scales"].unbind(-1))

        def run(codes: Tensor) -> Tensor:
            audio = self.model.decoder(self._dequantized(codes))
            return audio * scales.popleft()[:, None, None] if scales else audio

        frames = s.chunk_length // s.hop_length
        return BlockDecoder(
            Chunks(run, frames, frames, s.chunk_length),
            OverlapAdd(s.chunk_length, s.chunk_stride),
            pack=self._with_depth,
            take_side=take_side,
        )

    @property
    def levels(self) -> list[Any]:
        quantizer: Any = self.model.quantizer
        return list(quantizer.layers)[: self.spec.n_codebooks]


class StagedEncodecCodec(EncodecCodec, StagedCodec):
    """An EnCodec without chunks, scales or a second channel, such as the one at 24 kHz."""

    def encode_latents(self, waveform: Tensor) -> Tensor:
        check_layout(waveform)
        let_gradients_through(self.model.encoder)
        return self.model.encoder(waveform)

    def decode_latents(self, quantized: Tensor) -> Tensor:
        let_gradients_through(self.model.decoder)
        return self.model.decoder(quantized)


def _parts(network: nn.Module) -> tuple[nn.Sequential, nn.Module, nn.Sequential]:
    """Return the layers before the LSTM, the LSTM, and the layers after it."""
    layers: Any = network.layers
    layers = list(layers)
    at = next(i for i, layer in enumerate(layers) if hasattr(layer, "lstm"))
    return nn.Sequential(*layers[:at]), layers[at], nn.Sequential(*layers[at + 1 :])


def normalised(waveform: Tensor) -> tuple[Tensor, Tensor]:
    """Return [B, C, N] divided by its loudness, and the loudness [B, 1]."""
    scale = waveform.mean(1).square().mean(-1, keepdim=True).sqrt() + 1e-8
    return waveform / scale[..., None], scale


class _Recurrent:
    """The stage that runs an `EncodecLSTM` and keeps its state between pieces."""

    def __init__(self, layer: Any) -> None:
        self.lstm, self._state = layer.lstm, None  # zeros at first

    def push(self, x: Tensor) -> Iterator[Tensor]:
        x = x.permute(2, 0, 1)
        out, self._state = self.lstm(x, self._state)
        yield (out + x).permute(1, 2, 0)

    def finish(self) -> Iterator[Tensor]:
        yield from ()

    def ready(self, n: int) -> int:
        return n
