"""Train QINCo2 on frames through Accelerate.

quantizer = Qinco2(dim=64, n_codebooks=8, codebook_size=256)
train_qinco2(quantizer, frames, QincoTraining(steps=4000), validation=held_out, folder=run)

All randomness depends on (seed, step, process), so a killed run continues with the same weights.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokgen.nn.ema import Ema
from tokgen.quantizers.offline.base import check_frames, share_left
from tokgen.quantizers.offline.qinco2_network import Qinco2Network
from tokgen.quantizers.offline.settings import QincoTraining
from tokgen.runs.accelerator import make_accelerator, step_seed
from tokgen.runs.checkpoints import Checkpoints
from tokgen.runs.interrupts import Interrupt
from tokgen.runs.progress import progress_bar

__all__ = ["train_qinco2"]


def train_qinco2(
    quantizer: Qinco2Network,
    frames: Tensor,
    settings: QincoTraining | None = None,
    *,
    validation: Tensor | None = None,
    folder: Path | None = None,
    accelerator: Any = None,
    progress: bool = True,
) -> list[dict[str, float]] | None:
    """Train a quantizer, from residual k-means on.

    Args:
        quantizer: see above; its weights are replaced.
        frames: [n, D], the same in all processes.
        settings: None means those that `QincoTraining` starts with.
        validation: held-out frames [n, D], of which the share of variance left is recorded.
        folder: of the run, for `checkpoints/`, from which the same call continues; None keeps none.
        accelerator: from Accelerate; None makes one of full precision.
        progress: show progress bars.
    Returns:
        the validations; None if it was interrupted.
    Raises:
        ValueError, TypeError: as for `OfflineQuantizer.fit`.
        FloatingPointError: the loss is not finite.
    """
    s = settings or QincoTraining()
    frames = check_frames(frames, quantizer.dim, least=quantizer.codebook_size)
    accelerator = accelerator or make_accelerator(folder or Path(), "no", "none")
    checkpoints = None if folder is None else Checkpoints(folder / "checkpoints")
    if checkpoints is None or not checkpoints.steps():
        quantizer.start(frames, s.seed, progress and accelerator.is_main_process)
    optimizer = torch.optim.AdamW(
        quantizer.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay
    )
    network, optimizer = accelerator.prepare(quantizer.train(), optimizer)
    average = Ema(quantizer, 0.0)
    step, state = (0, {}) if checkpoints is None else checkpoints.resume(accelerator, average)
    target = quantizer.normalised(frames.to(accelerator.device))
    shape = quantizer.n_codebooks, quantizer.codebook_size
    uses = torch.tensor(state.get("uses", torch.zeros(shape).tolist()), device=target.device)
    history: list[dict[str, float]] = state.get("history", [])
    bar = progress_bar(
        "qinco2",
        total=s.steps,
        initial=step,
        unit="step",
        show=progress and accelerator.is_main_process,
    )
    interrupt, interrupted = Interrupt() if folder is not None else None, False
    try:
        with bar:
            while step < s.steps and not interrupted:
                for group in optimizer.param_groups:
                    group["lr"] = _rate(step, s)
                batch = _batch(target, s, step, accelerator.process_index)
                with torch.no_grad():
                    codes = quantizer.search(batch, quantizer.n_codebooks, s.beam)
                    counts = torch.stack(
                        [torch.bincount(c, minlength=shape[1]) for c in codes.T]
                    ).float()
                    uses += accelerator.reduce(counts, "sum")
                error, light = network(batch, codes)
                loss = error + light
                optimizer.zero_grad()
                accelerator.backward(loss)
                accelerator.clip_grad_value_(quantizer.parameters(), s.clip)
                optimizer.step()
                step += 1
                if step % 20 == 0 and not math.isfinite(value := float(loss.detach())):
                    raise FloatingPointError(
                        f"stopped at step {step}: the loss is {value}, but must be finite; lower "
                        "learning_rate"
                    )
                if step % s.replace_every == 0 and step < s.steps:
                    _replace_unused(quantizer, target, uses, step_seed(s.seed, step, 1 << 20))
                    uses.zero_()
                if validation is not None and (step % s.validate_every == 0 or step == s.steps):
                    history.append({"step": step, "share_left": _share(quantizer, validation)})
                    bar.note(share_left=f"{history[-1]['share_left']:.4f}")
                bar.update()
                interrupted = interrupt is not None and interrupt.agreed(accelerator)
                due = step % s.checkpoint_every == 0 or step == s.steps or interrupted
                if checkpoints is not None and due:
                    extra = {"uses": uses.tolist(), "history": history}
                    checkpoints.save(accelerator, step, extra, average)
    finally:
        if interrupt is not None:
            interrupt.release()
        quantizer.eval()
    return None if interrupted else history


def _rate(step: int, s: QincoTraining) -> float:
    """Return the learning rate of a step."""
    rise = min(1.0, (step + 1) / s.warmup) if s.warmup else 1.0
    return s.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * step / s.steps))


def _batch(target: Tensor, s: QincoTraining, step: int, process: int) -> Tensor:
    """Draw the frames of a step, with noise."""
    generator = torch.Generator().manual_seed(step_seed(s.seed, step, process))
    chosen = torch.randint(len(target), (s.batch_size,), generator=generator)
    batch = target[chosen.to(target.device)]
    if s.noise:
        drawn = torch.randn(batch.shape, generator=generator)
        batch = batch + s.noise * drawn.to(batch.device)
    return batch


@torch.no_grad()
def _replace_unused(quantizer: Qinco2Network, target: Tensor, uses: Tensor, seed: int) -> None:
    """Replace rows without use by what the levels before leave of frames of the data."""
    if not bool((uses == 0).any()):
        return
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(target), (quantizer.codebook_size,), generator=generator)
    sample = target[chosen.to(target.device)]
    decoded = quantizer.decoded_levels(quantizer.search(sample, quantizer.n_codebooks, 1))
    for k, unused in enumerate(uses == 0):
        left = sample if k == 0 else sample - decoded[k - 1]
        if k == 0:
            quantizer.first[unused] = left[unused]
            continue
        level = quantizer.levels[k - 1]
        level.rows[unused] = left[unused] if level.out is not None else left[unused] / 2
        if level.light is not None:
            level.light[unused] = left[unused]


def _share(quantizer: Qinco2Network, frames: Tensor) -> float:
    """Return the share of variance left of held-out frames, greedily coded."""
    frames = frames.to(quantizer.mean.device)
    return share_left(frames, quantizer.decode(quantizer.encode(frames)))
