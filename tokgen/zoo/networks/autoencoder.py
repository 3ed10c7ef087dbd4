"""Encoder and decoder of the STFT codec: spectrum -> ConvNeXt -> ConvNeXt -> inverse STFT.

All learned layers run at the frame rate, about 50 frames per second. The head follows Vocos
(Siuzdak 2023).

Frame t is centred on samples [t*hop, (t+1)*hop), so T = ceil(N / hop). Positions past the true
length of an item are set to zero before every convolution, as the zero padding of a lone item
would be, so batching does not change the latents.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.codec.windows import MIN_FRAMES, fit_length
from tokgen.nn.cards import ModelCardFacts
from tokgen.nn.dense import ROWS, use_onednn
from tokgen.nn.pretrained import Pretrained
from tokgen.zoo.networks.causal import CausalStack
from tokgen.zoo.networks.spectrum import Spectrum

__all__ = ["ConvNeXtBlock", "Stack", "StftAutoencoder", "StftNetwork"]


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


class StftNetwork(Pretrained):
    """Encoder and decoder of the STFT codec. `StftAutoencoder` and `StftCodecModel` build them."""

    encoder: Any
    decoder: Any

    def build_encoder(self, *, causal: bool = False, lookahead: int = 0) -> None:
        """Make `spectrum` and `encoder` from `config`."""
        c = self.config
        self.causal, self.lookahead = causal, lookahead
        self.sample_rate, self.hop_length = c["sample_rate"], c["hop_length"]
        self.spectrum = Spectrum(c["n_fft"], c["hop_length"], causal=causal)
        self._shape = {name: c[name] for name in ("width", "expansion", "kernel_size")}
        self._stack: Any = CausalStack if causal else Stack
        ahead = {"lookahead": lookahead} if causal else {}
        n_in, depth = 3 * (c["n_fft"] // 2 + 1), c["encoder_depth"]
        self.encoder = self._stack(n_in, c["latent_dim"], depth=depth, **self._shape, **ahead)

    def build_decoder(self) -> None:
        """Make `decoder` from `config`."""
        c = self.config
        n_out, depth = 3 * (c["n_fft"] // 2 + 1), c["decoder_depth"]
        self.decoder = self._stack(c["latent_dim"], n_out, depth=depth, **self._shape)

    def reset_head(self) -> None:
        """Draw the decoder's last layer; call it after all modules are made."""
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

    def encode_latents(
        self, waveform: Tensor, lengths: list[int] | None = None, *, widen: bool = True
    ) -> Tensor:
        """waveform [B, 1, N] -> latents [B, D, ceil(N/hop)], each frame of unit RMS.

        The fixed scale stops the encoder from growing its latents in joint training.

        Args:
            widen: pad few frames to a width from which all kernels round alike.
        """
        features, mask, n_frames = self._analyse(waveform, lengths, widen=widen)
        return self._latents(self.encoder(features, mask), n_frames)

    def _analyse(
        self, waveform: Tensor, lengths: list[int] | None, *, widen: bool = True
    ) -> tuple[Tensor, Tensor | None, int]:
        """Return the spectral features of padded frames, their mask and the number of frames."""
        n_frames = -(-waveform.shape[-1] // self.hop_length)
        padded = self._padded(n_frames + self.lookahead, widen)
        features = self.spectrum.analyse(fit_length(waveform, padded * self.hop_length))
        frames = [n_frames] if lengths is None else [-(-n // self.hop_length) for n in lengths]
        return features, None if self.causal else _frame_mask(frames, padded, features), n_frames

    def _latents(self, encoded: Tensor, n_frames: int) -> Tensor:
        latents = F.layer_norm(encoded.float(), encoded.shape[-1:])
        return latents.mT[..., self.lookahead : self.lookahead + n_frames]

    def decode_latents(self, quantized: Tensor, *, widen: bool = True) -> Tensor:
        """quantized [B, D, T] -> waveform [B, 1, T*hop]; `widen` as for `encode_latents`."""
        n_frames = quantized.shape[-1]
        padded = self._padded(n_frames, widen)
        mask = None if self.causal else _frame_mask([n_frames], padded, quantized)
        out = self.decoder(F.pad(quantized, (0, padded - n_frames)).mT, mask)[:, :n_frames]
        return self.spectrum.synthesise(out.float())

    def _padded(self, n_frames: int, widen: bool) -> int:
        """Return the number of frames to compute."""
        if self.causal or not widen:
            return n_frames
        return max(-(-n_frames // ROWS) * ROWS, MIN_FRAMES)


class StftAutoencoder(StftNetwork):
    """The STFT codec without a quantizer. `tokgen.zoo.continuous` wraps it as a `ContinuousCodec`.

    Args:
        sample_rate: Hz.
        hop_length: samples per frame.
        n_fft: window length in samples, a multiple of hop_length.
        width: channels of the ConvNeXt blocks.
        encoder_depth, decoder_depth: blocks of encoder and decoder.
        expansion: inner width of a block, as a multiple of `width`.
        kernel_size: kernel size of the depthwise convolutions, odd.
        latent_dim: D.
    """

    model_type = "tokgen_stft_autoencoder"

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
    ) -> None:
        super().__init__({k: v for k, v in locals().items() if k not in ("self", "__class__")})
        self.build_encoder()
        self.build_decoder()
        self.reset_head()

    def forward(self, waveform: Tensor, *, noise: float = 0.0) -> Tensor:
        """waveform [B, 1, N] -> reconstruction [B, 1, N].

        Args:
            waveform: see above.
            noise: standard deviation of normal noise on the latents, whose RMS is 1.
        """
        latents = self.encode_latents(waveform)
        if noise:
            latents = latents + noise * torch.randn_like(latents)
        return fit_length(self.decode_latents(latents), waveform.shape[-1])


def _frame_mask(frames: list[int], padded: int, like: Tensor) -> Tensor | None:
    """Return a mask [B or 1, padded, 1], 1 inside each item; None if nothing is padding."""
    if all(n == padded for n in frames):
        return None
    index = torch.arange(padded, device=like.device)
    mask = index < torch.tensor(frames, device=like.device)[:, None]
    return mask[..., None].to(like.dtype)
