"""The interface of quantizers that are fitted to frames: `OfflineQuantizer`.

quantizer = ResidualKMeans(dim=64, n_codebooks=8, codebook_size=1024)
quantizer.fit(frames)                           # [n, D]
codes = quantizer.encode(frames, beam=16)       # [n, K]
quantizer.decode(codes)                         # [n, D]
quantizer.save_pretrained("folder")
quantizer = load_quantizer("folder")
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from tokgen.codec.spec import MAX_BEAM
from tokgen.nn.pretrained import Pretrained

__all__ = ["CHUNK", "OfflineQuantizer", "check_frames", "share_left"]

CHUNK = 1 << 13  # frames that are coded at a time; codes do not depend on it


class OfflineQuantizer(Pretrained):
    """A quantizer of frames [n, D] that is fitted to frames of an autoencoder.

    Subclasses implement `_fit`, `_encode` and `_decode`, and keep all that `_fit` finds in
    parameters and buffers. The codes of a frame do not depend on the other frames.

    Args:
        config: the keyword arguments of the subclass's constructor, `dim`, `n_codebooks` and
            `codebook_size` among them.
    Attributes:
        dim, n_codebooks, codebook_size: D, K and R.
        nested: the first k codes of a frame decode to a coarser frame.
        searches: `encode` has a beam search.
    """

    nested: ClassVar[bool] = True
    searches: ClassVar[bool] = False
    fitted: Tensor  # 0 or 1

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.dim, self.n_codebooks = int(config["dim"]), int(config["n_codebooks"])
        self.codebook_size = int(config["codebook_size"])
        least = {"dim": 1, "n_codebooks": 1, "codebook_size": 2}
        for name, low in least.items():
            if config[name] < low:
                raise ValueError(f"{name} = {config[name]}: must be at least {low}")
        self.register_buffer("fitted", torch.zeros((), dtype=torch.uint8))

    def fit(self, frames: Tensor, *, seed: int = 0, progress: bool = True) -> None:
        """Fit to frames.

        Args:
            frames: [n, D] floats, at least `codebook_size` of them.
            seed: of everything that is random.
            progress: show a progress bar.
        Raises:
            TypeError: not a tensor of floats.
            ValueError: another width, too few frames, or a value that is not finite.
            ModuleNotFoundError: a library is missing; the error names the extra.
        """
        frames = check_frames(frames, self.dim, least=self.codebook_size)
        self._fit(frames, seed, progress)
        self.fitted.fill_(1)

    @torch.no_grad()
    def encode(
        self, frames: Tensor, n_codebooks: int | None = None, *, beam: int | None = None
    ) -> Tensor:
        """Return the codes of frames, coarse level first.

        Args:
            frames: [n, D] floats.
            n_codebooks: levels k to code for; None means all K. With a beam, the codes of k levels
                are not the first k of all levels: they are better.
            beam: paths that are kept after every level; None or 1 is greedy.
        Returns:
            codes int64 [n, k].
        Raises:
            TypeError, ValueError: as for `fit`; an unfitted quantizer; levels that it does not
                have; or a beam for a quantizer without a search.
        """
        self._check_fitted()
        k, beam = self.check_levels(n_codebooks), 1 if beam is None else beam
        if beam != 1 and not (self.searches and 1 <= beam <= MAX_BEAM):
            fix = f"use 1..{MAX_BEAM}" if self.searches else "it has no beam search; use 1"
            raise ValueError(f"beam = {beam} for {type(self).__name__}: {fix}")
        frames = check_frames(frames, self.dim).to(self.fitted.device)
        with torch.autocast(frames.device.type, enabled=False):
            found = [self._encode(part, k, beam) for part in frames.split(CHUNK)]
        return torch.cat(found)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Return frames [n, D] for codes int64 [n, k], k <= K.

        Raises:
            TypeError: not a tensor of integers.
            ValueError: another shape, a code outside the codebook, or fewer levels than K for a
                quantizer that is not nested.
        """
        self._check_fitted()
        if not isinstance(codes, Tensor) or codes.is_floating_point() or codes.dtype == torch.bool:
            found = getattr(codes, "dtype", type(codes).__name__)
            raise TypeError(f"codes are {found}, not a tensor [n, k] of integers")
        if codes.ndim != 2:
            raise ValueError(f"codes of shape {tuple(codes.shape)}: expected [n, k]")
        self.check_levels(codes.shape[1])
        codes = codes.long().to(self.fitted.device)
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.codebook_size:
            raise ValueError(
                f"codes span {int(codes.min())}..{int(codes.max())}: entries are "
                f"0..{self.codebook_size - 1}"
            )
        if not len(codes):
            return torch.zeros(0, self.dim, device=codes.device)
        with torch.autocast(codes.device.type, enabled=False):
            return torch.cat([self._decode(part) for part in codes.split(CHUNK)])

    def check_levels(self, n_codebooks: int | None) -> int:
        """Return the number of levels to code for; None means all.

        Raises:
            ValueError: the quantizer cannot code for so many.
        """
        k, most = self.n_codebooks if n_codebooks is None else n_codebooks, self.n_codebooks
        if not 1 <= k <= most:
            raise ValueError(f"n_codebooks = {k}: {type(self).__name__} has levels 1..{most}")
        if k < most and not self.nested:
            raise ValueError(
                f"n_codebooks = {k}: the codes of {type(self).__name__} are not nested, so it "
                f"needs all {most}; fit one with fewer"
            )
        return k

    def _check_fitted(self) -> None:
        if not bool(self.fitted):
            raise ValueError(f"this {type(self).__name__} is not fitted: call fit first")

    @abstractmethod
    def _fit(self, frames: Tensor, seed: int, progress: bool) -> None:
        """Fit to checked frames, float32 [n, D]."""

    @abstractmethod
    def _encode(self, frames: Tensor, n_codebooks: int, beam: int) -> Tensor:
        """Encode checked frames [n, D], n <= `CHUNK`, to codes [n, n_codebooks]."""

    @abstractmethod
    def _decode(self, codes: Tensor) -> Tensor:
        """Decode checked codes [n, k] to frames [n, D]."""


def check_frames(frames: Tensor, dim: int, least: int = 1) -> Tensor:
    """Return frames [n, `dim`] as float32; raise an error as `OfflineQuantizer.fit` does."""
    if not isinstance(frames, Tensor) or not frames.is_floating_point():
        found = getattr(frames, "dtype", type(frames).__name__)
        raise TypeError(f"frames are {found}, not a tensor [n, {dim}] of floats")
    if frames.ndim != 2 or frames.shape[1] != dim:
        fix = "; pass frames.T" if frames.ndim == 2 and len(frames) == dim else ""
        raise ValueError(f"frames of shape {tuple(frames.shape)}: expected [n, {dim}]{fix}")
    if len(frames) < least:
        raise ValueError(
            f"{len(frames)} frames: at least {least} are needed; give more audio, or fit a smaller "
            "codebook"
        )
    frames = frames.float()
    if not bool(frames.isfinite().all()):
        raise ValueError("frames hold NaN or infinity: drop the clips that they come from")
    return frames


@torch.no_grad()
def share_left(frames: Tensor, decoded: Tensor) -> float:
    """Return the share of the variance of frames [n, D] that decoded frames leave."""
    error = (frames.double() - decoded.double()).square().sum()
    return float(error / (frames.double() - frames.double().mean(0)).square().sum())
