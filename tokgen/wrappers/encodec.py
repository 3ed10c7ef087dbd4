"""EnCodec as transformers runs it (Défossez et al. 2022, "High Fidelity Neural Audio Compression").

There are two kinds. At 24 kHz it is causal and mono, and sees the whole audio. At 48 kHz it is
stereo and codes chunks of a second that overlap by 1 %: audio is padded with zeros to whole
chunks, as `EncodecFeatureExtractor` does, and the codes of chunks follow each other along T. It
divides each chunk by its loudness, and these scales are side information: a decoder needs them.
transformers takes the lowest bandwidth where none is asked for; this wrapper takes the highest.

Same audio, same codes: every item is encoded alone, at its true length. Audio of the first kind
that is longer than a window goes through the convolutions in windows that overlap by their whole
field of view; the LSTM between them sees everything that came before, and runs over the whole at
the frame rate, so memory grows with the audio by about what the audio itself takes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tokgen.codec import CodecSpec, Encoded, Side, UnsupportedStage, cut_chunks
from tokgen.wrappers import encodec_numbers
from tokgen.wrappers.loading import TransformersCodec
from tokgen.wrappers.residual import ResidualCodec, let_gradients_through

if TYPE_CHECKING:
    from transformers import EncodecConfig, EncodecModel

WINDOW_SECONDS = 20.0


class EncodecCodec(TransformersCodec, ResidualCodec):
    """`transformers.EncodecModel` as a `Codec`; the 24 kHz kind shows its stages.

    Attributes:
        window_frames: longer audio goes through the convolutions in windows of so many frames.
        side_names: "scales", one value per chunk, where the model normalises.
    """

    model: EncodecModel
    model_class = "EncodecModel"
    numbers = staticmethod(encodec_numbers)

    def __init__(self, model: EncodecModel, spec: CodecSpec) -> None:
        super().__init__(model, spec)
        self.side_names = ("scales",) if model.config.normalize else ()
        self.window_frames = max(1, round(WINDOW_SECONDS * spec.frame_rate))
        self.encoder_reach, self.decoder_reach = _reaches(model.config)

    # -- verbs ---------------------------------------------------------------

    def side_length(self, n_samples: int) -> int:
        return self.spec.n_chunks(n_samples) if self.side_names else 0

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        n_samples, n_items = waveform.shape[-1], len(lengths)
        shape = (n_items, self.spec.n_codebooks, self.spec.n_frames(n_samples))
        codes = torch.zeros(shape, dtype=torch.long, device=waveform.device)
        scales = waveform.new_zeros(n_items, self.side_length(n_samples))
        for i, n in enumerate(lengths):
            found, loudness = self._encode_alone(waveform[i : i + 1, :, :n])
            codes[i, :, : found.shape[-1]] = found[0]
            scales[i, : loudness.shape[-1]] = loudness[0]
        return Encoded(codes, {"scales": scales} if self.side_names else {})

    def _encode_alone(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """[1, C, N] -> codes [1, K, T], and scales [1, S]."""
        chunks, codes, scales = [waveform], [], []
        if self.spec.chunk_length:
            cut = cut_chunks(waveform, self.spec.chunk_length, self.spec.chunk_stride)
            chunks = list(cut.unbind(-2))
        for chunk in chunks:
            scale = chunk.new_empty(1, 0)
            if self.side_names:
                scale = chunk.mean(1).square().mean(-1, keepdim=True).sqrt() + 1e-8
                chunk = chunk / scale[..., None]
            latents = self._latents(chunk).split(self.window_frames, dim=-1)
            codes += [self.quantize(part) for part in latents]
            scales.append(scale)
        return torch.cat(codes, dim=-1), torch.cat(scales, dim=-1)

    def _latents(self, waveform: Tensor) -> Tensor:
        """`model.encoder`, its convolutions before the LSTM window after window."""
        n_frames = self.spec.n_frames(waveform.shape[-1])
        if n_frames <= self.window_frames or not self._has_windows:
            return self.model.encoder(waveform)
        before, lstm, after = _parts(self.model.encoder)
        hop, reach, size = self.spec.hop_length, self.encoder_reach, self.window_frames
        hidden = []
        for start in range(0, n_frames, size):
            first = max(0, start - reach)
            window = waveform[..., first * hop : (start + size + reach) * hop]
            hidden.append(_run(before, window)[..., start - first :][..., :size])
        return _run([lstm, *after], torch.cat(hidden, dim=-1))

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        n_chunks, scales = 1, side.get("scales")
        if self.spec.chunk_length:
            n_chunks = codes.shape[-1] * self.spec.hop_length // self.spec.chunk_length
        if scales is not None and scales.shape != (len(codes), n_chunks):
            raise ValueError(
                f"scales of shape {tuple(scales.shape)}: {self.spec.name} needs one per chunk, "
                f"{(len(codes), n_chunks)}, for codes of shape {tuple(codes.shape)}"
            )
        chunks = []
        for i, part in enumerate(codes.chunk(n_chunks, dim=-1)):
            audio = self._synthesise(self.dequantize(part))
            chunks.append(audio if scales is None else audio * scales[:, i, None, None])
        return chunks[0] if n_chunks == 1 else _overlap_add(chunks, self.spec.chunk_stride)

    def _synthesise(self, quantized: Tensor) -> Tensor:
        """`model.decoder`, its convolutions after the LSTM window after window."""
        n_frames = quantized.shape[-1]
        if n_frames <= self.window_frames or not self._has_windows:
            return self.model.decoder(quantized)
        before, lstm, after = _parts(self.model.decoder)
        hop, reach, size = self.spec.hop_length, self.decoder_reach, self.window_frames
        hidden = _run([*before, lstm], quantized)
        pieces = []
        for start in range(0, n_frames, size):
            first, stop = max(0, start - reach), min(start + size, n_frames)
            audio = _run(after, hidden[..., first : stop + reach])
            pieces.append(audio[..., (start - first) * hop : (stop - first) * hop])
        return torch.cat(pieces, dim=-1)

    @property
    def _has_windows(self) -> bool:
        """Not where a chunk is one already, nor where a normalisation sees all of the audio."""
        return not self.spec.chunk_length and self.model.config.norm_type == "weight_norm"

    @property
    def levels(self) -> list[Any]:
        quantizer: Any = self.model.quantizer
        return list(quantizer.layers)[: self.spec.n_codebooks]

    # -- stages that chunks and scales have no place in ----------------------

    def encode_latents(self, waveform: Tensor) -> Tensor:
        self._check_open("encode_latents")
        let_gradients_through(self.model.encoder)
        return self.model.encoder(waveform)

    def decode_latents(self, quantized: Tensor) -> Tensor:
        self._check_open("decode_latents")
        let_gradients_through(self.model.decoder)
        return self.model.decoder(quantized)

    def _check_open(self, stage: str) -> None:
        if self.spec.chunk_length or self.side_names or self.spec.channels > 1:
            raise UnsupportedStage(self, stage)


def _parts(network: nn.Module) -> tuple[list[nn.Module], nn.Module, list[nn.Module]]:
    """The layers before the LSTM, the LSTM, and those after it."""
    layers: Any = network.layers
    layers = list(layers)
    at = next(i for i, layer in enumerate(layers) if hasattr(layer, "lstm"))
    return layers[:at], layers[at], layers[at + 1 :]


def _run(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _overlap_add(chunks: list[Tensor], stride: int) -> Tensor:
    """Chunks [B, C, L] each, `stride` apart -> [B, C, N], faded into each other linearly."""
    length = chunks[0].shape[-1]
    rise = torch.arange(1, length + 1, device=chunks[0].device) / (length + 1)
    weight = torch.minimum(rise, rise.flip(0))
    n_samples = (len(chunks) - 1) * stride + length
    total = chunks[0].new_zeros(*chunks[0].shape[:-1], n_samples)
    weights = total.new_zeros(n_samples)
    for i, chunk in enumerate(chunks):
        here = slice(i * stride, i * stride + length)
        total[..., here] += weight * chunk
        weights[here] += weight
    return total / weights


def _reaches(config: EncodecConfig) -> tuple[int, int]:
    """How many frames to either side the convolutions before an encoder's LSTM, and those after
    a decoder's, can reach."""
    units = range(config.num_residual_layers)
    unit = (config.residual_kernel_size - 1) * sum(config.dilation_growth_rate**j for j in units)
    encoder, step = config.kernel_size - 1, 1
    for ratio in reversed(config.upsampling_ratios):
        encoder += step * (unit + 2 * ratio)
        step *= ratio
    hop, decoder = step, config.last_kernel_size - 1
    for ratio in config.upsampling_ratios:
        decoder += 2 * step
        step //= ratio
        decoder += step * unit
    return -(-encoder // hop), -(-decoder // hop)
