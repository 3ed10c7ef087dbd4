"""Change a segment of audio a little, until its codes are the wanted ones.

The change follows the spectrum of the audio, as masking does in hearing: with Y the STFT of the
audio and |Y| its level around each bin, the audio becomes ISTFT(Y + |Y| u). Adam moves u, complex,
down the cross entropy of the wanted codes. A code weighs more the longer it has been wrong, as the
multiplier of a violated constraint does in dual ascent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tokgen.codec.stable.settings import StableDecoding
from tokgen.codec.stable.targets import CodeTargets
from tokgen.codec.stable.transports import Transport

__all__ = ["Found", "Segment", "search"]

_BETAS = (0.7, 0.9)  # of Adam: more momentum overshoots
_DUAL = 0.3  # weight that a wrong code gains in every step
_SECONDS = 0.032  # of the STFT's window
_FLOOR = 2e-6  # least level of a bin, as a share of full scale
_OK = 0.1  # share of the margin at which a code counts as right


@dataclass
class Segment:
    """Audio to change, and where.

    Attributes:
        audio: [B, 1, n], as it is now.
        plain: [B, 1, n], as it was decoded; the change follows its spectrum.
        gate: [n] in 0..1, how much of the change applies to each sample.
        targets: wanted codes of all frames of the segment.
        losses: frames whose codes the search improves.
        must: frames whose codes end the search when they are right.
    """

    audio: Tensor
    plain: Tensor
    gate: Tensor
    targets: CodeTargets
    losses: slice
    must: slice


@dataclass
class Found:
    """The best audio of a search.

    Attributes:
        audio: [B, 1, n].
        wrong: frames of the segment with wrong codes, bool [B, T]; False outside `must`.
        steps: steps taken for each item, [B].
    """

    audio: Tensor
    wrong: Tensor
    steps: Tensor


def search(
    encode: Callable[[Tensor], Tensor],
    segment: Segment,
    settings: StableDecoding,
    transports: list[Transport],
    sample_rate: int,
    noise: torch.Generator,
) -> Found:
    """Search for a change after which the segment has the wanted codes.

    Args:
        encode: audio [B, 1, n] -> latents [B, D, T], with a gradient.
        transports: the codes must survive each of them; none means the audio itself.
        noise: for random transports.
    Returns:
        the audio with the most right codes, where a level counts if those before it are right.
    """
    spectra = _Spectra(segment.plain, sample_rate)
    targets = segment.targets.cut(segment.losses.start, segment.losses.stop)
    first, last = (x - segment.losses.start for x in (segment.must.start, segment.must.stop))
    change = torch.zeros_like(spectra.level, dtype=torch.complex64)
    change = torch.view_as_real(change).requires_grad_()
    adam = torch.optim.Adam([change], lr=settings.rate, betas=_BETAS)
    weights = torch.ones_like(targets.codes, dtype=torch.float32)
    n_items, n_frames = len(segment.audio), segment.targets.codes.shape[-1]
    best = Found(
        segment.audio,
        torch.ones(n_items, n_frames, dtype=torch.bool, device=segment.audio.device),
        torch.zeros(n_items, dtype=torch.long),
    )
    best.wrong[:, : segment.must.start] = best.wrong[:, segment.must.stop :] = False
    highest = torch.full((n_items,), -1, device=segment.audio.device)
    for step in range(settings.steps + 1):
        audio = segment.audio + segment.gate * spectra.synthesise(change)
        carried = [carry(audio, noise) for carry in transports] or [audio]
        total, right = torch.zeros_like(weights), torch.ones_like(weights, dtype=torch.bool)
        for arrived in carried:
            latents = encode(arrived)[..., segment.losses]
            loss, margin = targets.compare(latents, settings.margin, settings.temperature)
            total = total + loss / len(carried)
            right &= margin > _OK * settings.margin
        kept = right[..., first:last].cumprod(1).sum(1)  # levels before the first wrong one
        score = kept.sum(1)
        better = score > highest
        highest = torch.where(better, score, highest)
        best.audio = torch.where(better[:, None, None], audio.detach(), best.audio)
        best.wrong[better, segment.must] = (kept < right.shape[1])[better]
        open_items = best.wrong.any(1).cpu()
        if step == settings.steps or not open_items.any():
            break
        best.steps[open_items] = step + 1
        weights = weights + _DUAL * ~right
        (change.grad,) = torch.autograd.grad((total * weights).sum(), change)
        adam.step()
    return best


class _Spectra:
    """The STFT of changes to audio [B, 1, n], relative to the level of the audio in each bin."""

    def __init__(self, audio: Tensor, sample_rate: int) -> None:
        self.size = 1 << round(_SECONDS * sample_rate).bit_length() - 1
        self.n = audio.shape[-1]
        self.window = torch.hann_window(self.size, device=audio.device)
        padded = F.pad(audio[:, 0], (0, max(0, self.size - self.n)))
        level = torch.stft(
            padded, self.size, self.size // 4, window=self.window, return_complex=True
        ).abs()
        # the mean over 5 bins x 3 frames
        level = F.avg_pool2d(level[:, None], (5, 3), 1, (2, 1), count_include_pad=False)[:, 0]
        self.level = level + _FLOOR * self.size

    def synthesise(self, change: Tensor) -> Tensor:
        """Relative change, real view [B, bins, frames, 2] -> audio [B, 1, n]."""
        spectrum = self.level * torch.view_as_complex(change)
        length = max(self.n, self.size)
        audio = torch.istft(spectrum, self.size, self.size // 4, window=self.window, length=length)
        return audio[:, None, : self.n]
