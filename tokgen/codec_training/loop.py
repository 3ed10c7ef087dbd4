"""The training loop of a codec with its discriminators.

    training = CodecTraining(accelerator, codec, discriminator, crops, settings, folder, steps=1000)
    for step in training.steps():
        audio, generator = training.audio(step)
        with accelerator.autocast():
            out = training.network(audio)
        losses = training.distances(out.waveform, audio)
        losses |= training.adversary.step(audio, out.waveform, generator)
        training.descend(training.total(losses, out.waveform))
        training.log(losses)
        if training.validates:
            training.record(validate(training.averaged(), ...))

All randomness depends on (seed, step, process), so a killed run resumes with the same weights.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.codec_training.adversary import Adversary
from tokgen.codec_training.balancer import Balancer
from tokgen.codec_training.crops import AudioCrops
from tokgen.codec_training.feed import feed
from tokgen.codec_training.settings import SharedSettings
from tokgen.nn.ema import Ema
from tokgen.nn.spectral_losses import MelPower, MultiScaleMel, SpectralDistance
from tokgen.runs.accelerator import step_seed
from tokgen.runs.checkpoints import Checkpoints
from tokgen.runs.interrupts import Interrupt
from tokgen.runs.progress import progress_bar

__all__ = ["LOG_EVERY", "OF_WAVEFORM", "CodecTraining"]

LOG_EVERY = 20  # steps
OF_WAVEFORM = ("mel", "spectral", "time", "feature", "adversarial")  # losses for the balancer


class CodecTraining:
    """One training of a codec. It continues from the newest checkpoint in `folder`.

    Args:
        accelerator: from `make_accelerator`.
        model: the module to train; parameters without `requires_grad` stay as they are.
        discriminator: waveform [B, C, N], bandwidth -> feature maps per discriminator.
        crops: training audio.
        settings: see `SharedSettings`.
        folder: folder of the run, for checkpoints/.
        steps: number of steps.
        first: step from which the model trains; only the discriminators do before.
        compile: run the model through torch.compile.
        balance: scale the gradients of the losses at the waveform with a `Balancer`.
        name: label of the progress bar, and prefix of logged names.

    Attributes:
        network: the model, prepared by Accelerate; call this one.
        step: steps done, the current one included.
        n_samples: length of a crop.
        history: validation results, one dict each.
        balancer: None without `balance`.
        state: more JSON-ready values that are saved with checkpoints.
        interrupted: Ctrl-C or SIGTERM ended the loop; a checkpoint was written.
    """

    def __init__(
        self,
        accelerator: Any,
        model: nn.Module,
        discriminator: nn.Module,
        crops: AudioCrops,
        settings: SharedSettings,
        folder: Path,
        *,
        steps: int,
        first: int = 0,
        compile: bool = False,
        balance: bool = False,
        name: str = "",
    ) -> None:
        s = settings
        self.accelerator, self.model, self.crops, self.settings = accelerator, model, crops, s
        self.n_steps, self.name, self.interrupted = steps, name, False
        self.first, self._averaged_steps = first, round(s.average * (steps - first))
        trained = [p for p in model.parameters() if p.requires_grad]
        adamw = partial(torch.optim.AdamW, betas=s.betas, weight_decay=s.weight_decay, fused=True)
        optimizer = adamw(trained, lr=s.learning_rate)
        critic_optimizer = adamw(discriminator.parameters(), lr=s.discriminator_learning_rate)
        network = torch.compile(model) if compile else model
        self.network, self.discriminator, self.optimizer, critic_optimizer = accelerator.prepare(
            network, discriminator, optimizer, critic_optimizer
        )
        rate = crops.sample_rate
        self.n_samples = heard = round(s.seconds * rate)
        if s.adversarial_seconds is not None:
            heard = round(s.adversarial_seconds * rate)
        if heard < (least := getattr(discriminator, "min_samples", 0)):
            raise ValueError(
                f"the discriminators judge {heard} samples, but their longest window has {least}: "
                "raise seconds and adversarial_seconds, or shorten the windows"
            )
        self._feed: Iterator[tuple[Tensor, torch.Generator]] | None = None
        self._fed = 0  # step of the next crops
        self.adversary = Adversary(
            accelerator,
            self.discriminator,
            critic_optimizer,
            s.discriminator_clip,
            heard,
            share=s.discriminator_share,
            loss=s.adversarial_loss,
            features=s.feature_loss,
        )
        self.mel: nn.Module = MelPower(rate)
        if s.mel_loss == "log":
            self.mel = MultiScaleMel(rate, scales_per_step=s.mel_scales_per_step)
        self.mel.to(accelerator.device)
        self.spectral = SpectralDistance().to(accelerator.device)
        self.balancer: Balancer | None = None
        if balance:
            weights = {name: getattr(s.weights, name) for name in OF_WAVEFORM}
            self.balancer = Balancer(weights, mean=partial(accelerator.reduce, reduction="mean"))
        self.ema = Ema(model, s.ema, keep=s.average > 0)
        self.checkpoints = Checkpoints(folder / "checkpoints")
        self.step, self.state = self.checkpoints.resume(accelerator, self.ema)
        self.history: list[dict[str, Any]] = self.state.get("history", [])
        if self.balancer is not None and "balancer" in self.state:
            self.balancer.load_state_dict(self.state["balancer"])
        self._began = time.monotonic() - self.state.get("seconds", 0.0)
        if self.step:
            accelerator.print(f"{folder.name}: continuing at step {self.step} of {steps}")

    def steps(self) -> Iterator[int]:
        """Yield the number of each step that is left, counted from 0.

        Saves checkpoints between steps. Ends early on Ctrl-C or SIGTERM.
        """
        accelerator, every = self.accelerator, self.settings.checkpoint_every
        interrupt = Interrupt()
        self._bar = progress_bar(
            self.name or "training",
            total=self.n_steps,
            initial=self.step,
            unit="step",
            show=accelerator.is_main_process,
        )
        try:
            while self.step < self.n_steps and not self.interrupted:
                torch.manual_seed(
                    step_seed(self.settings.seed, self.step, accelerator.process_index)
                )
                self.step += 1
                yield self.step - 1
                self._bar.update()
                self.interrupted = interrupt.agreed(accelerator)
                if self.step % every == 0 or self.step == self.n_steps or self.interrupted:
                    seconds = time.monotonic() - self._began
                    self.state |= {"history": self.history, "seconds": seconds}
                    if self.balancer is not None:
                        self.state["balancer"] = self.balancer.state_dict()
                    self.checkpoints.save(accelerator, self.step, self.state, self.ema)
        finally:
            self._bar.close()
            interrupt.release()
            self._feed = None  # ends its workers
        if self.interrupted:
            accelerator.print(
                f"interrupted at step {self.step}: checkpoint written; run the same command "
                "again to continue"
            )

    def set_rates(self, step: int, factor: float = 1.0, peak: float | None = None) -> float:
        """Set the learning rates of a step, and return the codec's.

        Both rates decay by `lr_decay` per step, `rate_steps_before` steps included.

        Args:
            step: step of the codec, from 0.
            factor: on the codec's rate, such as `rate_factor`.
            peak: the codec's rate before the decay; None means `learning_rate`.
        """
        s = self.settings
        decay = s.lr_decay ** (s.rate_steps_before + step)
        rate = (s.learning_rate if peak is None else peak) * decay * factor
        critic = self.adversary.optimizer
        for optimizer, new in (
            (self.optimizer, rate),
            (critic, s.discriminator_learning_rate * decay),
        ):
            for group in optimizer.param_groups:
                group["lr"] = new
        return rate

    def audio(self, step: int) -> tuple[Tensor, torch.Generator]:
        """Draw the augmented crops of a step.

        Returns:
            waveform [B, C, N] on the device, and the generator for the step's other draws.
        """
        accelerator = self.accelerator
        if self._feed is None or step != self._fed:
            first, stride = accelerator.process_index, accelerator.num_processes
            indices = [n * stride + first for n in range(step, self.n_steps)]
            pinned = accelerator.device.type == "cuda"
            self._feed = feed(self.crops, self.settings, self.n_samples, indices, pin_memory=pinned)
        self._fed = step + 1
        audio, generator = next(self._feed)
        return audio.to(accelerator.device, non_blocking=True), generator

    def distances(self, estimate: Tensor, reference: Tensor) -> dict[str, Tensor]:
        """Compute the losses of waveforms [B, C, N]: "mel", "spectral" and, if weighted, "time"."""
        losses = {
            "mel": self.mel(estimate, reference),
            "spectral": self.spectral(estimate, reference),
        }
        if self.settings.weights.time:
            losses["time"] = F.l1_loss(estimate, reference)
        return losses

    def total(self, losses: Mapping[str, Tensor], waveform: Tensor) -> Tensor:
        """Join losses by their weights, for `descend`.

        With a balancer, the result has the balanced gradient at `waveform` and no useful value.

        Args:
            losses: scalars.
            waveform: the decoded waveform [B, C, N] that the losses were computed from.
        """
        weights = self.settings.weights
        if self.balancer is None:
            return weights.total(losses)
        total = self.balancer.loss(losses, waveform)
        for name, loss in losses.items():
            if name not in OF_WAVEFORM and hasattr(weights, name):
                total = total + getattr(weights, name) * loss
        return total

    def descend(self, loss: Tensor, frozen: Iterable[nn.Parameter] = ()) -> None:
        """Back-propagate, clip, and take an optimiser step.

        Args:
            loss: scalar.
            frozen: parameters that this step does not change.
        """
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        for parameter in frozen:
            parameter.grad = None
        self.accelerator.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self.optimizer.step()
        in_window = self.step - (self.n_steps - self._averaged_steps)  # from 1
        self.ema.update(1 / in_window if in_window > 0 else None)

    def log(self, values: Mapping[str, Tensor | float]) -> None:
        """Show values on the bar and send them to the tracker, every `LOG_EVERY` steps.

        With a balancer, the tracker also gets "share/<loss>", the loss's share of the gradient, and
        "weight/<loss>", the share that its weight asks for.

        Raises:
            FloatingPointError: a value is not finite.
        """
        if self.step % LOG_EVERY and self.step != self.n_steps:
            return
        if self.balancer is not None:
            shares = {f"share/{k}": share for k, share in self.balancer.shares.items()}
            wanted = {f"weight/{k}": share for k, share in self.balancer.weight_shares.items()}
            values = {**values, **shares, **wanted}
        numbers = {k: float(v.detach() if isinstance(v, Tensor) else v) for k, v in values.items()}
        for name, number in numbers.items():
            if not math.isfinite(number):
                raise FloatingPointError(
                    f"stopped at step {self.step}: {name} is {number}, but must be finite; lower "
                    f"the learning rates. The last checkpoint is in {self.checkpoints.folder}"
                )
        prefix = f"{self.name}/" if self.name else ""
        self.accelerator.log({prefix + k: v for k, v in numbers.items()}, step=self.step)
        self._bar.note(**{k: f"{v:.3g}" for k, v in numbers.items() if "/" not in k})

    @property
    def validates(self) -> bool:
        """True every `validate_every` steps, and after the last step."""
        return self.step % self.settings.validate_every == 0 or self.step == self.n_steps

    def averaged(self) -> Any:
        """A copy of the model with its averaged weights, in eval mode."""
        with self.ema.in_place():
            return copy.deepcopy(self.model).eval()

    def record(self, scores: Mapping[str, Any]) -> None:
        """Add the scores of a validation to the history, and print them.

        With a balancer, each loss's shares of the gradient and of the weights go with them.
        """
        if self.balancer is not None:
            wanted = self.balancer.weight_shares
            shares = {
                k: [round(x, 4), round(wanted[k], 4)] for k, x in self.balancer.shares.items()
            }
            scores = {**scores, "shares": shares}
        minutes = (time.monotonic() - self._began) / 60
        self.history.append({"step": self.step, "minutes": minutes, **scores})
        if self.accelerator.is_main_process:
            self._bar.write(f"step {self.step}, {minutes:.1f} min: {scores}")
        numbers = {k: v for k, v in scores.items() if isinstance(v, float)}
        self.accelerator.log(numbers, step=self.step)

    def save_discriminator(self, folder: Path) -> None:
        """Save the discriminators, to tune the codec with them later."""
        self.accelerator.unwrap_model(self.discriminator).save_pretrained(folder)
