"""Network of the STFT codec: spectrum -> ConvNeXt -> RVQ -> ConvNeXt -> inverse STFT.

All learned layers run at the frame rate, about 50 frames per second. The head follows Vocos
(Siuzdak 2023), the quantizer DAC (Kumar et al. 2023).

Frame t is centred on samples [t*hop, (t+1)*hop), so T = ceil(N / hop). Positions past the true
length of an item are set to zero before every convolution, as the zero padding of a lone item
would be, so batching does not change the codes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.codec.spec import Quantized
from tokgen.codec.windows import MIN_FRAMES, fit_length
from tokgen.nn.cards import ModelCardFacts
from tokgen.nn.dense import ROWS, use_onednn
from tokgen.nn.pretrained import Pretrained
from tokgen.quantizers.residual import ResidualQuantizer
from tokgen.quantizers.settings import VariableSettings
from tokgen.quantizers.variable import ImportanceNetwork, quantize_variable
from tokgen.zoo.networks.causal import CausalStack
from tokgen.zoo.networks.spectrum import Spectrum

__all__ = ["ConvNeXtBlock", "Stack", "StftCodecModel"]


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, then two linear layers per frame (Liu et al. 2022)."""

    def __init__(self, width: int, expansion: int, kernel_size: int, scale: float) -> None:
        super().__init__()
        self.left = kernel_size // 2
        self.depthwise = nn.Conv1d(
            width, width, kernel_size, groups=width, padding=kernel_size // 2
        )
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, width * expansion)
        self.contract = nn.Linear(width * expansion, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x [B, T, C] -> [B, T, C]; mask [B, T, 1] is 1 inside each item."""
        y = x if mask is None else x * mask
        y = self.norm(self.depthwise(y.mT).mT)
        return x + self.scale * self.contract(F.gelu(self.expand(y)))


class Stack(nn.Module):
    """Linear layer -> ConvNeXt blocks -> norm -> linear layer, on [B, T, C]."""

    def __init__(
        self, n_in: int, n_out: int, *, width: int, depth: int, expansion: int, kernel_size: int
    ) -> None:
        super().__init__()
        self.embed = (
            nn.Conv1d(n_in, width, 3, padding=1) if n_in < width else nn.Linear(n_in, width)
        )
        self.left = 1  # frames that the convolution of `embed` sees before its own
        # frames seen on either side
        self.before = self.after = (n_in < width) + depth * (kernel_size // 2)
        self.norm_in = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(width, expansion, kernel_size, 1 / depth) for _ in range(depth)
        )
        self.norm_out = nn.LayerNorm(width)
        self.head = nn.Linear(width, n_out)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.finish(self.body(x, mask))

    def body(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Run all but the last norm and layer; returns [B, T, width]."""
        if mask is not None:
            x = x * mask
        x = self.embed(x.mT).mT if isinstance(self.embed, nn.Conv1d) else self.embed(x)
        x = self.norm_in(x)
        for block in self.blocks:
            x = block(x, mask)
        return x

    def finish(self, x: Tensor) -> Tensor:
        """Run the last norm and layer."""
        return self.head(self.norm_out(x))


class StftCodecModel(Pretrained):
    """Network of the STFT codec. `tokgen.zoo.stft.StftCodec` wraps it as a `Codec`.

    Args:
        sample_rate: Hz.
        hop_length: samples per frame.
        n_fft: window length in samples, a multiple of hop_length.
        width: channels of the ConvNeXt blocks.
        encoder_depth: blocks before the quantizer.
        decoder_depth: blocks after it.
        expansion: inner width of a block, as a multiple of `width`.
        kernel_size: kernel size of the depthwise convolutions, odd.
        latent_dim: D.
        n_codebooks: K.
        codebook_size: entries per level.
        codebook_dim: d.
        quantizer_dropout: share of training items that keep a random number of levels.
        causal: no frame depends on later ones, except by `lookahead`, and by windows that overlap.
        lookahead: frames after its own that a frame of latents depends on, if `causal`.
        importance: arguments of the `ImportanceNetwork` of a variable bitrate, without its
            `feature_dim`; None for a codec without one.
    """

    model_type = "tokgen_stft_codec"

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
        causal: bool = False,
        lookahead: int = 0,
        importance: dict[str, Any] | None = None,
    ) -> None:
        settings = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(settings)
        if not 0 <= lookahead < (kernel_size if causal else 1):
            raise ValueError(
                f"lookahead = {lookahead} with causal = {causal}: must be 0, or with causal "
                f"0..{kernel_size - 1} (kernel_size - 1)"
            )
        if causal and importance is not None:
            raise ValueError("importance with causal = True: the network looks ahead; use only one")
        self.causal, self.lookahead = causal, lookahead
        self.sample_rate, self.hop_length = sample_rate, hop_length
        self.spectrum = Spectrum(n_fft, hop_length, causal=causal)
        n_bins = n_fft // 2 + 1
        shape = {"width": width, "expansion": expansion, "kernel_size": kernel_size}
        ahead = {"lookahead": lookahead} if causal else {}
        stack: Any = CausalStack if causal else Stack
        self.encoder = stack(3 * n_bins, latent_dim, depth=encoder_depth, **shape, **ahead)
        self.quantizer = ResidualQuantizer(
            latent_dim=latent_dim,
            n_codebooks=n_codebooks,
            codebook_size=codebook_size,
            codebook_dim=codebook_dim,
            dropout=quantizer_dropout,
        )
        self.decoder = stack(latent_dim, 3 * n_bins, depth=decoder_depth, **shape)
        self.importance = None if importance is None else ImportanceNetwork(width, **importance)
        nn.init.zeros_(self.decoder.head.bias)
        nn.init.trunc_normal_(self.decoder.head.weight, std=0.02)
        use_onednn(self)

    def save_pretrained(
        self,
        folder: str | Path,
        dtype: torch.dtype | None = None,
        card: ModelCardFacts | None = None,
    ) -> Path:
        """Save as `Pretrained.save_pretrained`, with the settings of a feature extractor.

        transformers' `AutoFeatureExtractor` reads preprocessor_config.json.
        """
        folder = super().save_pretrained(folder, dtype, card)
        extractor = {
            "feature_extractor_type": "EncodecFeatureExtractor",
            "feature_size": 1,
            "sampling_rate": self.sample_rate,
            "padding_value": 0.0,
            "padding_side": "right",
            "return_attention_mask": True,
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(extractor, indent=2) + "\n")
        return folder

    def encode_latents(self, waveform: Tensor, lengths: list[int] | None = None) -> Tensor:
        """waveform [B, 1, N] -> latents [B, D, ceil(N/hop)], each frame of unit RMS.

        The fixed scale stops the encoder from growing its latents in joint training.
        """
        features, mask, n_frames = self._analyse(waveform, lengths)
        return self._latents(self.encoder(features, mask), n_frames)

    def encode_with_importance(
        self, waveform: Tensor, lengths: list[int] | None = None, *, detach: bool = False
    ) -> tuple[Tensor, Tensor]:
        """waveform [B, 1, N] -> the latents of `encode_latents`, and importance [B, T] in (0, 1).

        Args:
            waveform: see above.
            lengths: samples of each item; None means all.
            detach: no gradient flows from the importance to the encoder.
        """
        assert self.importance is not None
        features, mask, n_frames = self._analyse(waveform, lengths)
        x = self.encoder.body(features, mask)
        inside = None if mask is None else mask[..., 0] > 0
        importance = self.importance((x.detach() if detach else x).mT, inside)
        return self._latents(self.encoder.finish(x), n_frames), importance[:, :n_frames]

    def _analyse(
        self, waveform: Tensor, lengths: list[int] | None
    ) -> tuple[Tensor, Tensor | None, int]:
        """Return the spectral features of padded frames, their mask and the number of frames."""
        n_frames = -(-waveform.shape[-1] // self.hop_length)
        padded = self._padded(n_frames + self.lookahead)
        features = self.spectrum.analyse(fit_length(waveform, padded * self.hop_length))
        frames = [n_frames] if lengths is None else [-(-n // self.hop_length) for n in lengths]
        return features, None if self.causal else _frame_mask(frames, padded, features), n_frames

    def _latents(self, encoded: Tensor, n_frames: int) -> Tensor:
        latents = F.layer_norm(encoded.float(), encoded.shape[-1:])
        return latents.mT[..., self.lookahead : self.lookahead + n_frames]

    def decode_latents(self, quantized: Tensor) -> Tensor:
        """quantized [B, D, T] -> waveform [B, 1, T*hop]."""
        n_frames = quantized.shape[-1]
        padded = self._padded(n_frames)
        mask = None if self.causal else _frame_mask([n_frames], padded, quantized)
        out = self.decoder(F.pad(quantized, (0, padded - n_frames)).mT, mask)[:, :n_frames]
        return self.spectrum.synthesise(out.float())

    def forward(
        self, waveform: Tensor, *, quantize: bool = True, variable: VariableSettings | None = None
    ) -> tuple[Tensor, Quantized | None]:
        """waveform [B, 1, N] -> reconstruction [B, 1, N], and the quantizer's result.

        Args:
            waveform: see above.
            quantize: False skips the quantizer, as the first phase of training does.
            variable: train the importance network with these settings; the result is then a
                `VariableQuantized`.
        """
        result: Quantized | None = None
        if variable is not None and quantize:
            latents, importance = self.encode_with_importance(waveform, detach=variable.detach)
            result = quantize_variable(self.quantizer.levels, latents, importance, variable)
        else:
            latents = self.encode_latents(waveform)
            result = self.quantizer(latents) if quantize else None
        decoded = self.decode_latents(latents if result is None else result.quantized)
        return fit_length(decoded, waveform.shape[-1]), result

    def _padded(self, n_frames: int) -> int:
        """Return the number of frames to compute, so that all kernels round alike."""
        return n_frames if self.causal else max(-(-n_frames // ROWS) * ROWS, MIN_FRAMES)


def _frame_mask(frames: list[int], padded: int, like: Tensor) -> Tensor | None:
    """Return a mask [B or 1, padded, 1], 1 inside each item; None if nothing is padding."""
    if all(n == padded for n in frames):
        return None
    index = torch.arange(padded, device=like.device)
    mask = index < torch.tensor(frames, device=like.device)[:, None]
    return mask[..., None].to(like.dtype)
