"""Network of ESC (Gu and Diao 2024, "Efficient Speech Coding"), for inference."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from tokgen.nn.pretrained import Pretrained
from tokgen.zoo.networks.esc_layers import Layer, Merge, PatchDeEmbed, PatchEmbed, Split, Stream

__all__ = ["EscModel"]


class _Encoder(nn.Module):
    def __init__(self, patch_embed: PatchEmbed, pre_nn: Layer, blocks: list[Layer]) -> None:
        super().__init__()
        self.patch_embed, self.pre_nn, self.blocks = patch_embed, pre_nn, nn.ModuleList(blocks)


class _Decoder(nn.Module):
    def __init__(self, blocks: list[Layer], post_nn: Layer, patch_deembed: PatchDeEmbed) -> None:
        super().__init__()
        self.blocks, self.post_nn, self.patch_deembed = (
            nn.ModuleList(blocks),
            post_nn,
            patch_deembed,
        )


class EscModel(Pretrained):
    """Network of ESC. `tokgen.zoo.rebuilt.esc.Esc` wraps it as a `Codec`.

    Args:
        sample_rate: Hz.
        win_length: samples in a window of the spectrum.
        hop_length: samples between two of its frames.
        in_freq: its bins; the size of the FFT is 2 * (in_freq - 1).
        h_dims: channels at each scale, finest first. A stream quantizes each scale, from the
            coarsest on, which two streams do.
        patch_size: bins and frames in a patch.
        swin_heads: attention heads at each scale but the coarsest.
        swin_depth: blocks at each scale.
        window_size: bands and frames in a window of attention.
        mlp_ratio: inner width of feed-forward networks over the channels.
        overlap: frames of patches in a frame of codes.
        group_size: groups of a product quantizer.
        codebook_size: entries per level.
        codebook_dims: d of each stream, coarsest first.
        l2norm: rows are chosen by their angle, not by their distance.
    """

    model_type = "esc"
    window: Tensor

    def __init__(
        self,
        *,
        sample_rate: int,
        win_length: int,
        hop_length: int,
        in_freq: int,
        h_dims: list[int],
        patch_size: list[int],
        swin_heads: list[int],
        swin_depth: int,
        window_size: int,
        mlp_ratio: float,
        overlap: int,
        group_size: int,
        codebook_size: int,
        codebook_dims: list[int],
        l2norm: bool,
    ) -> None:
        settings = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(settings)
        n_streams, bands = len(h_dims), in_freq // patch_size[0]
        if len(swin_heads) != n_streams - 1 or len(codebook_dims) != n_streams or n_streams < 2:
            raise ValueError(
                f"{n_streams} h_dims, {len(swin_heads)} swin_heads and {len(codebook_dims)} "
                "codebook_dims: must be n, n - 1 and n numbers, n at least 2"
            )
        if bands * patch_size[0] != in_freq or bands % 2 ** (n_streams - 1):
            factor = patch_size[0] * 2 ** (n_streams - 1)
            raise ValueError(f"in_freq = {in_freq}: must be a multiple of {factor}")
        self.n_fft = 2 * (in_freq - 1)
        if not 0 < 2 * hop_length <= win_length <= self.n_fft:
            raise ValueError(
                f"win_length = {win_length}: must be 2 * hop_length = {2 * hop_length} to "
                f"{self.n_fft}"
            )
        self.frame_length = hop_length * patch_size[1] * overlap
        if self.frame_length < in_freq:
            raise ValueError(
                f"frames of {self.frame_length} samples: must be at least in_freq = {in_freq}"
            )
        self.register_buffer("window", torch.hann_window(win_length), persistent=False)
        blocks = swin_depth, window_size, mlp_ratio
        back, steps = h_dims[::-1], list(zip(pairwise(h_dims), swin_heads, strict=True))
        self.encoder = _Encoder(
            PatchEmbed(2, h_dims[0], patch_size),
            Layer(h_dims[0], swin_heads[0], *blocks),
            [Layer(dim, heads, *blocks, Merge(dim, out)) for (dim, out), heads in steps],
        )
        self.decoder = _Decoder(
            [Layer(dim, heads, *blocks, Split(dim, out)) for (out, dim), heads in steps[::-1]],
            Layer(h_dims[0], swin_heads[0], *blocks),
            PatchDeEmbed(2, h_dims[0], patch_size),
        )
        self.heights = [bands >> (n_streams - 1 - max(i - 1, 0)) for i in range(n_streams)]
        dims = [back[max(i - 1, 0)] for i in range(n_streams)]
        self.quantizers = nn.ModuleList(
            Stream(dim * height, overlap, group_size, (codebook_size, d), by_angle=l2norm)
            for dim, height, d in zip(dims, self.heights, codebook_dims, strict=True)
        )

    def encode(self, waveform: Tensor, n_streams: int) -> Tensor:
        """waveform [B, 1, T * frame_length] -> codes [B, n_streams * group_size, T]."""
        x = self.encoder.pre_nn(self.encoder.patch_embed(self._analyse(waveform)))
        scales = [x]
        for block in self.encoder.blocks:
            scales.append(block(scales[-1]))
        codes = [self.quantizers[0].encode(scales[-1])]  # type: ignore[operator]
        decoded = self._decode_stream(0, codes[0])
        for i in range(1, n_streams):
            codes.append(self.quantizers[i].encode(scales[-i] - decoded))  # type: ignore[operator]
            if i < n_streams - 1:
                decoded = self.decoder.blocks[i - 1](decoded + self._decode_stream(i, codes[i]))
        return torch.cat(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, k, T] of the first levels -> waveform [B, 1, T * frame_length]."""
        streams = codes.split(self.config["group_size"], dim=1)
        decoded = self._decode_stream(0, streams[0])
        for i, block in enumerate(self.decoder.blocks, start=1):
            if i < len(streams):
                decoded = decoded + self._decode_stream(i, streams[i])
            decoded = block(decoded)
        spectrum = self.decoder.patch_deembed(self.decoder.post_nn(decoded))
        return self._synthesise(spectrum, codes.shape[-1] * self.frame_length)

    def _decode_stream(self, index: int, codes: Tensor) -> Tensor:
        """Codes [B, k, T] of a stream -> features [B, H, W, C]."""
        return self.quantizers[index].decode(codes, self.heights[index])  # type: ignore[operator]

    def _analyse(self, waveform: Tensor) -> Tensor:
        """waveform [B, 1, N] -> real and imaginary parts [B, 2, in_freq, N / hop_length].

        The frame that is centred on the end is left out.
        """
        hop, size = self.config["hop_length"], self.config["win_length"]
        spectrum = torch.stft(
            waveform[:, 0], self.n_fft, hop, size, self.window, return_complex=True
        )
        return torch.view_as_real(spectrum[..., :-1]).permute(0, 3, 1, 2)

    def _synthesise(self, spectrum: Tensor, n_samples: int) -> Tensor:
        """Inverse of `_analyse`."""
        hop, size = self.config["hop_length"], self.config["win_length"]
        parts = torch.complex(spectrum[:, 0], spectrum[:, 1])
        return torch.istft(parts, self.n_fft, hop, size, self.window, length=n_samples)[:, None]
