"""The augmented crops of each training step, drawn ahead by other processes.

    for audio, generator in feed(crops, settings, n_samples, range(1000)):
        ...

What a step gets depends on its number and the settings alone, not on the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tokgen.codec_training.augment import augment
from tokgen.codec_training.crops import AudioCrops
from tokgen.codec_training.settings import SharedSettings
from tokgen.runs.workers import leave_interrupts

__all__ = ["AHEAD", "StepCrops", "feed"]

AHEAD = 4  # steps that each process draws ahead


class StepCrops(Dataset[tuple[Tensor, Tensor]]):
    """The crops of every step, by its index.

    Args:
        crops: training audio.
        settings: batch size, augmentation and seed.
        n_samples: length of a crop.
    """

    def __init__(self, crops: AudioCrops, settings: SharedSettings, n_samples: int) -> None:
        self.crops, self.settings, self.n_samples = crops, settings, n_samples

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the waveform [B, C, N], and the state of the generator of the step's draws."""
        s = self.settings
        generator = torch.Generator().manual_seed(s.seed + index)
        audio = augment(
            self.crops.batch(
                index,
                seed=s.seed,
                batch_size=s.batch_size,
                n_samples=self.n_samples,
                speed=s.speed,
            ),
            self.crops.sample_rate,
            loudness=s.loudness,
            gain_db=s.gain_db,
            phase=s.phase_augmentation,
            generator=generator,
        )
        return audio, generator.get_state()


def feed(
    crops: AudioCrops,
    settings: SharedSettings,
    n_samples: int,
    indices: Sequence[int],
    *,
    pin_memory: bool = False,
) -> Iterator[tuple[Tensor, torch.Generator]]:
    """Draw the crops of some steps, ahead in `settings.workers` processes.

    Args:
        crops, settings, n_samples: see `StepCrops`.
        indices: index of the crops of each step, in order.
        pin_memory: for a GPU.
    Yields:
        waveform [B, C, N], and the generator for the step's other draws.
    """
    loader = DataLoader(
        StepCrops(crops, settings, n_samples),
        batch_size=None,
        sampler=indices,
        num_workers=settings.workers,
        prefetch_factor=AHEAD if settings.workers else None,
        pin_memory=pin_memory,
        worker_init_fn=leave_interrupts,
        generator=torch.Generator(),  # otherwise it takes a number of the global one
    )
    for audio, state in loader:
        generator = torch.Generator()
        generator.set_state(state.cpu())
        yield audio, generator
