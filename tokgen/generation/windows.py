"""Generate long utterances in overlapping windows: the model's memory does not grow with them.

A window starts `overlap` frames before the first missing code. Codes that are there, given or
generated, are kept, and the window's other codes are generated. What lies before the window and
after it is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tokgen.codec.spec import CodecSpec
from tokgen.generation.sampling import BAR_DELAY
from tokgen.generation.settings import WindowSettings
from tokgen.runs.progress import progress_bar

__all__ = ["Windows", "sample_windows"]


@dataclass(frozen=True)
class Windows:
    """Windows of frames.

    Attributes:
        frames: frames of a window.
        overlap: frames that a window shares with what is known before it; fewer than `frames`.
    """

    frames: int
    overlap: int

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.frames:
            raise ValueError(
                f"windows of {self.frames} frames that overlap by {self.overlap}: the overlap must "
                "be at least 0 and shorter than the window"
            )

    @classmethod
    def of(cls, settings: WindowSettings, spec: CodecSpec) -> Windows:
        """Return the windows of a codec's frames; at least one frame of each window is new."""
        frames = max(1, round(settings.window_seconds * spec.frame_rate))
        overlap = round(settings.overlap_seconds * spec.frame_rate)
        return cls(frames, min(overlap, frames - 1))


def sample_windows(
    sampler: Callable[..., Tensor],
    model: Any,
    conditioning: Tensor | None,
    lengths: Tensor,
    settings: Any,
    *,
    windows: Windows | None,
    codes: Tensor,
    keep: Tensor,
    item_ids: Sequence[int],
    progress: bool = False,
    **options: Any,
) -> Tensor:
    """Generate codes as `sampler` does, items that are longer than a window in several windows.

    Items that fit into one window are sampled together, as a whole. The first window of a longer
    item has the item's noise, later windows have noise of their own.

    Args:
        sampler: `sample`, or a function of the same form.
        windows: None samples all items as a whole.
        progress: show a bar if it takes long.
        model, conditioning, lengths, settings, codes, keep, item_ids: as in `sample`.
        options: further arguments of `sampler`. A `shape` is for whole items only.
    Returns:
        codes as `sampler` returns them.
    """
    if windows is None or int(lengths.max()) <= windows.frames:
        more = options | {"codes": codes, "keep": keep, "item_ids": item_ids}
        return sampler(model, conditioning, lengths, settings, progress=progress, **more)
    options.pop("shape", None)
    tokens, known = codes.cpu().clone(), keep.cpu().clone()
    total = int(lengths.sum())
    with progress_bar(
        "generating", total=total, unit="frame", delay=BAR_DELAY, show=progress
    ) as bar:
        for i, length in enumerate(lengths.tolist()):
            known[i, :, length:] = True
            window, done = 0, 0
            while (missing := (~known[i]).any(0).nonzero()).numel():
                first = int(missing[0])
                start = max(0, first - windows.overlap)
                end = min(start + windows.frames, length)
                part = (slice(i, i + 1), slice(None), slice(start, end))
                tokens[part] = sampler(
                    model,
                    None if conditioning is None else conditioning[part],
                    torch.tensor([end - start]),
                    settings,
                    codes=tokens[part],
                    keep=known[part],
                    item_ids=[item_ids[i] + (window << 32)],
                    **options,
                ).cpu()
                known[part] = True
                window += 1
                bar.update(end - done)
                done = end
            tokens[i, :, length:] = 0
            bar.update(length - done)
    return tokens
