"""An STFT-domain codec that trains on a laptop: spectrum -> ConvNeXt -> RVQ -> ConvNeXt -> ISTFT.

All learned layers run at the frame rate, so a second of audio costs some 50 frames of matrix
products in place of a waveform codec's thousands. The head follows Vocos (Siuzdak 2023), the
quantizer DAC (Kumar et al. 2023).

Frame t is centred on samples [t*hop, (t+1)*hop), so T = ceil(N / hop) and codes of frame t see
only the audio around it. Positions past an item's true length are held at zero before every
convolution, exactly like the zero padding at the end of a lone item: batching changes nothing.
Long audio goes through in windows that overlap by all that a frame sees: same codes, and memory
that does not grow.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.codec.blocks import BlockDecoder, BlockEncoder
from tokgen.codec.spec import CodecSpec, Encoded, Quantized, Side
from tokgen.codec.stages import StagedCodec
from tokgen.codec.windows import MIN_FRAMES, Reach, Windows, fit_length, run_whole
from tokgen.nn.dense import ROWS, use_onednn
from tokgen.nn.pretrained import Pretrained, folder_name, hash_weights
from tokgen.quantizers.residual import ResidualQuantizer

WINDOW_FRAMES = 1000  # long audio is coded in windows of so many frames
FLOOR = 1e-4  # magnitudes under it count as silence: their phase is noise


class Spectrum(nn.Module):
    """Waveform frames <-> features. Windows are n_fft long, hop_length apart, periodic Hann."""

    window: Tensor
    level_mean: Tensor
    level_std: Tensor

    def __init__(self, n_fft: int, hop_length: int) -> None:
        super().__init__()
        if n_fft % hop_length or n_fft < 2 * hop_length:
            raise ValueError(
                f"n_fft = {n_fft}: must be a multiple of hop_length = {hop_length}, at least twice"
            )
        self.n_fft, self.hop_length = n_fft, hop_length
        self.edge = (n_fft - hop_length) // 2
        self.reach = -(-self.edge // hop_length)  # frames whose windows overlap, to either side
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.register_buffer("level_mean", torch.full((n_fft // 2 + 1,), -4.0))
        self.register_buffer("level_std", torch.full((n_fft // 2 + 1,), 2.0))

    @torch.no_grad()
    def fit_levels(self, waveform: Tensor) -> None:
        """Set the mean and deviation of log magnitudes per bin from audio [B, 1, T*hop].

        Otherwise training begins by learning how loud each bin is.
        """
        levels = self.analyse(waveform)[..., : self.n_fft // 2 + 1].flatten(0, 1)
        levels = levels * self.level_std + self.level_mean
        self.level_mean.copy_(levels.mean(0))
        self.level_std.copy_(levels.std(0).clamp(min=0.1))

    def analyse(self, waveform: Tensor) -> Tensor:
        """[B, 1, T*hop] -> standardised log magnitude, cos, sin: [B, T, 3 * (n_fft/2 + 1)]."""
        padded = F.pad(waveform[:, 0], (self.edge, self.n_fft - self.hop_length - self.edge))
        frames = padded.unfold(-1, self.n_fft, self.hop_length) * self.window
        spectrum = torch.fft.rfft(frames.roll(self.n_fft // 2, -1), norm="ortho")
        magnitude = spectrum.real.square().add(spectrum.imag.square()).add(FLOOR**2).sqrt()
        level = (magnitude.log() - self.level_mean) / self.level_std
        return torch.cat([level, spectrum.real / magnitude, spectrum.imag / magnitude], dim=-1)

    def synthesise(self, features: Tensor) -> Tensor:
        """What `analyse` gives, the phase vector of any length -> [B, 1, T*hop]."""
        level, real, imag = features.chunk(3, dim=-1)
        log_magnitude = level * self.level_std + self.level_mean
        length = (real.square() + imag.square() + 1e-6).sqrt()
        scale = log_magnitude.clamp(max=6.0).exp() / length
        spectrum = torch.complex(scale * real, scale * imag)
        frames = torch.fft.irfft(spectrum, n=self.n_fft, norm="ortho")
        frames = frames.roll(self.n_fft // 2, -1) * self.window
        return (self._overlap_add(frames) / self._envelope(frames.shape[1]))[:, None]

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """[B, T, n_fft] -> [B, T*hop]."""
        ratio = self.n_fft // self.hop_length
        pieces = frames.unflatten(-1, (ratio, self.hop_length))  # [B, T, R, hop]
        shifted = [F.pad(pieces[:, :, r], (0, 0, r, ratio - 1 - r)) for r in range(ratio)]
        total = torch.stack(shifted).sum(0)
        n_samples = frames.shape[1] * self.hop_length
        return total.flatten(1)[:, self.edge : self.edge + n_samples]

    def _envelope(self, n_frames: int) -> Tensor:
        return self._overlap_add(self.window.square().expand(1, n_frames, -1))


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, then a two-layer map per frame (Liu et al. 2022)."""

    def __init__(self, width: int, expansion: int, kernel_size: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(
            width, width, kernel_size, groups=width, padding=kernel_size // 2
        )
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, width * expansion)
        self.contract = nn.Linear(width * expansion, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x [B, T, C]; mask [B, T, 1] is 1 inside each item."""
        y = x if mask is None else x * mask
        y = self.norm(self.depthwise(y.mT).mT)
        return x + self.scale * self.contract(F.gelu(self.expand(y)))


class Stack(nn.Module):
    """Linear -> ConvNeXt blocks -> norm -> linear, all [B, T, C]."""

    def __init__(
        self, n_in: int, n_out: int, *, width: int, depth: int, expansion: int, kernel_size: int
    ) -> None:
        super().__init__()
        self.embed = (
            nn.Conv1d(n_in, width, 3, padding=1) if n_in < width else nn.Linear(n_in, width)
        )
        self.reach = (n_in < width) + depth * (kernel_size // 2)  # frames seen to either side
        self.norm_in = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(width, expansion, kernel_size, 1 / depth) for _ in range(depth)
        )
        self.norm_out = nn.LayerNorm(width)
        self.head = nn.Linear(width, n_out)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            x = x * mask
        x = self.embed(x.mT).mT if isinstance(self.embed, nn.Conv1d) else self.embed(x)
        x = self.norm_in(x)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.norm_out(x))


class StftCodecModel(Pretrained):
    """The network of the STFT codec; `StftCodec` is its `Codec`.

    Args:
        sample_rate: Hz.
        hop_length: samples per frame.
        n_fft: window length in samples, a multiple of hop_length.
        width: channels of the ConvNeXt blocks.
        encoder_depth: blocks before the quantizer.
        decoder_depth: blocks after it.
        expansion: of the blocks' inner layer.
        kernel_size: of the depthwise convolutions, odd.
        latent_dim: D.
        n_codebooks: K.
        codebook_size: entries per level.
        codebook_dim: d.
        quantizer_dropout: share of training items that keep a random number of levels.
    """

    def __init__(
        self,
        *,
        sample_rate: int = 16000,
        hop_length: int = 320,
        n_fft: int = 640,
        width: int = 320,
        encoder_depth: int = 3,
        decoder_depth: int = 4,
        expansion: int = 3,
        kernel_size: int = 7,
        latent_dim: int = 64,
        n_codebooks: int = 8,
        codebook_size: int = 1024,
        codebook_dim: int = 8,
        quantizer_dropout: float = 0.5,
    ) -> None:
        settings = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(settings)
        self.sample_rate, self.hop_length = sample_rate, hop_length
        self.spectrum = Spectrum(n_fft, hop_length)
        n_bins = n_fft // 2 + 1
        shape = {"width": width, "expansion": expansion, "kernel_size": kernel_size}
        self.encoder = Stack(3 * n_bins, latent_dim, depth=encoder_depth, **shape)
        self.quantizer = ResidualQuantizer(
            latent_dim=latent_dim,
            n_codebooks=n_codebooks,
            codebook_size=codebook_size,
            codebook_dim=codebook_dim,
            dropout=quantizer_dropout,
        )
        self.decoder = Stack(latent_dim, 3 * n_bins, depth=decoder_depth, **shape)
        nn.init.zeros_(self.decoder.head.bias)
        nn.init.trunc_normal_(self.decoder.head.weight, std=0.02)
        use_onednn(self)

    def encode_latents(self, waveform: Tensor, lengths: list[int] | None = None) -> Tensor:
        """waveform [B, 1, N] -> latents [B, D, ceil(N/hop)], each frame of unit RMS.

        The fixed scale leaves the encoder no way to grow its latents in joint training.
        """
        n_frames = -(-waveform.shape[-1] // self.hop_length)
        padded = max(-(-n_frames // ROWS) * ROWS, MIN_FRAMES)
        features = self.spectrum.analyse(fit_length(waveform, padded * self.hop_length))
        frames = [n_frames] if lengths is None else [-(-n // self.hop_length) for n in lengths]
        mask = _frame_mask(frames, padded, features)
        latents = self.encoder(features, mask)
        latents = F.layer_norm(latents.float(), latents.shape[-1:])
        return latents.mT[..., :n_frames]

    def decode_latents(self, quantized: Tensor) -> Tensor:
        """quantized [B, D, T] -> waveform [B, 1, T*hop]."""
        n_frames = quantized.shape[-1]
        padded = max(-(-n_frames // ROWS) * ROWS, MIN_FRAMES)
        mask = _frame_mask([n_frames], padded, quantized)
        out = self.decoder(F.pad(quantized, (0, padded - n_frames)).mT, mask)[:, :n_frames]
        return self.spectrum.synthesise(out.float())

    def forward(
        self, waveform: Tensor, *, quantize: bool = True
    ) -> tuple[Tensor, Quantized | None]:
        """waveform [B, 1, N] -> reconstruction [B, 1, N] and what the quantizer did.

        `quantize=False` skips the quantizer: the continuous autoencoder of the first phase.
        """
        latents = self.encode_latents(waveform)
        result = self.quantizer(latents) if quantize else None
        decoded = self.decode_latents(latents if result is None else result.quantized)
        return fit_length(decoded, waveform.shape[-1]), result


def _frame_mask(frames: list[int], padded: int, like: Tensor) -> Tensor | None:
    """[B or 1, padded, 1] of ones inside each item; None where nothing is padding."""
    if all(n == padded for n in frames):
        return None
    index = torch.arange(padded, device=like.device)
    mask = index < torch.tensor(frames, device=like.device)[:, None]
    return mask[..., None].to(like.dtype)


class StftCodec(StagedCodec):
    """`StftCodecModel` as a `Codec`, with every stage open."""

    model: StftCodecModel

    def __init__(self, model: StftCodecModel, spec: CodecSpec) -> None:
        self.model, self.spec, self.window_frames = model, spec, WINDOW_FRAMES

    @staticmethod
    def numbers(config: dict[str, Any]) -> dict[str, Any]:
        """Fields of `CodecSpec` from config.json."""
        names = ("sample_rate", "hop_length", "n_codebooks", "codebook_size")
        return {name: config[name] for name in names}

    @classmethod
    def from_model(cls, model: StftCodecModel, name: str = "stft", **spec: str | None) -> StftCodec:
        numbers = cls.numbers(model.config)
        full = CodecSpec(name, **numbers, weight_hash=hash_weights(model), **spec)  # type: ignore[arg-type]
        return cls(model.eval(), full)

    @classmethod
    def from_pretrained(cls, folder: str | Path, name: str | None = None, **spec) -> StftCodec:
        """From a folder that `StftCodecModel.save_pretrained` wrote, or a hub id."""
        model = StftCodecModel.from_pretrained(folder)
        return cls.from_model(model, name or folder_name(folder), **spec)

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        return Encoded(run_whole([self._encoder_windows(None, lengths)], waveform))

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        return run_whole([self._decoder_windows(None)], codes)

    def block_encoder(self, step: int | None = None) -> BlockEncoder:
        return BlockEncoder(self._encoder_windows(step))

    def block_decoder(self, step: int | None = None) -> BlockDecoder:
        return BlockDecoder(self._decoder_windows(step))

    def _encoder_windows(self, step: int | None, lengths: list[int] | None = None) -> Windows:
        hop = self.spec.hop_length

        def run(waveform: Tensor, first: int) -> Tensor:
            inside = None
            if lengths is not None:
                size = waveform.shape[-1]
                inside = [min(max(0, n - first * hop), size) for n in lengths]
            return self.quantize(self.model.encode_latents(waveform, inside))

        return self._windows(run, self.model.encoder.reach, step, hop_in=hop)

    def _decoder_windows(self, step: int | None) -> Windows:
        def run(codes: Tensor, first: int) -> Tensor:
            return self.decode_latents(self.dequantize(codes))

        return self._windows(run, self.model.decoder.reach, step, hop_out=self.spec.hop_length)

    def _windows(
        self, run: Callable[[Tensor, int], Tensor], reach: int, step: int | None, **hops: int
    ) -> Windows:
        context = reach + self.model.spectrum.reach
        return Windows(run, Reach(context, context), size=self.window_frames, step=step, **hops)

    def encode_latents(self, waveform: Tensor) -> Tensor:
        return self.model.encode_latents(waveform)

    def project(self, latents: Tensor) -> Tensor:
        return self.model.quantizer.encode(latents)[1]

    def quantize(self, latents: Tensor) -> Tensor:
        return self.model.quantizer.encode(latents)[0]

    def codebook_rows(self, codes: Tensor) -> Tensor:
        return self.model.quantizer.codebook_rows(codes)

    def dequantize(self, codes: Tensor) -> Tensor:
        return self.model.quantizer.decode(codes)

    def decode_latents(self, quantized: Tensor) -> Tensor:
        return self.model.decode_latents(quantized)

    def quantize_through(self, latents: Tensor) -> Quantized:
        return self.model.quantizer(latents)

    def code_vectors(self) -> Tensor:
        return self.model.quantizer.code_vectors()

    def save_pretrained(self, folder: str | Path) -> None:
        self.model.save_pretrained(folder, dtype=torch.float16)
