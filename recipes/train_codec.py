"""Train a codec: continuous autoencoder, quantizer from data, decoder, everything, adversary.

    accelerate launch recipes/train_codec.py --config recipes/train_codec.yaml \
        --corpora '[en.parquet, es.parquet, fr.parquet, it.parquet]'

Phases are settings: a phase of 0 steps is skipped, and `--architecture dac` with
`--continuous_steps 0 --adversarial_start 0` is DAC's own recipe. Losses, discriminators and
optimiser are DAC's (Kumar et al. 2023); the spectral-distance term is ours. The same command
again continues an interrupted run.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import set_seed
from tqdm import tqdm

from tokgen.codec_training.adversary import Adversary, part_of
from tokgen.codec_training.augment import augment
from tokgen.codec_training.crops import AudioCrops
from tokgen.codec_training.discriminators.ensemble import Discriminator
from tokgen.codec_training.phases import Phases, cooled
from tokgen.codec_training.trainable import load_into, make_trainable
from tokgen.codec_training.validation import validate
from tokgen.corpus.listed import open_corpus
from tokgen.nn.ema import ema_update
from tokgen.nn.spectral_losses import MultiScaleMel, SpectralDistance
from tokgen.runs.accelerator import pick_precision, step_seed
from tokgen.runs.checkpoints import Checkpoints
from tokgen.runs.folder import write_json
from tokgen.runs.interrupts import Interrupt, run_recipe
from tokgen.runs.settings import claim_run, parse_settings, save_settings


@dataclass(frozen=True)
class Weights:
    """Loss weights; DAC's, and `spectral` for the complex distance (0 in DAC)."""

    mel: float = 15.0
    spectral: float = 0.0
    feature: float = 2.0
    adversarial: float = 1.0
    commitment: float = 0.25
    codebook: float = 1.0


@dataclass(frozen=True)
class Settings:
    """Settings of a codec training run.

    Attributes:
        name: the run's folder is runs/<name>.
        architecture: "stft" (StftCodecModel) or "dac" (transformers' DacModel).
        model: settings of the architecture's config.
        discriminator: settings of `Discriminator`.
        corpora: folders, Parquet files, saved datasets or hub ids; their train splits.
        steps: in all.
        continuous_steps: first steps without quantizer, which is then started from data.
        decoder_steps: steps after that with encoder and quantizer frozen.
        adversarial_start: step from which the discriminators train.
        adversarial_warmup: steps in which the discriminators train alone.
        start_from: a codec folder to begin with; its quantizer is kept.
        start_discriminator: a saved discriminator to begin with.
        batch_size: crops per process and step.
        seconds: per crop.
        learning_rate: after `warmup` steps; restarted at each phase.
        joint_learning_rate: once encoder and quantizer train together.
        lr_decay: factor per step.
        cooldown: share of each phase's end in which the rate falls to 5 %.
        ema: decay of the averaged weights, which are validated and saved; 0 for none.
        max_codebook_loss: above it the run stops: the quantizer has diverged.
        loudness: LUFS that crops are brought to (DAC: -16); None leaves their level.
        gain_db: random level changes after that, dB to either side.
        phase_augmentation: rotate the phase of each crop by a random angle.
        mel_scales_per_step: mel scales drawn per step; None takes all seven.
        adversarial_seconds: part of each crop that the discriminators see; None for all.
        validation: corpus for validation; None takes the first of `corpora`.
        validation_split: its split.
        validation_min_seconds: shorter clips are left out (PESQ needs some speech).
    """

    name: str = "train_codec"
    architecture: str = "stft"
    model: dict = field(default_factory=dict)
    discriminator: dict = field(default_factory=dict)
    corpora: list[str] = field(default_factory=lambda: ["recipes/data/allison"])
    steps: int = 20000
    continuous_steps: int = 0
    decoder_steps: int = 0
    adversarial_start: int = 0
    adversarial_warmup: int = 0
    start_from: str | None = None
    start_discriminator: str | None = None
    batch_size: int = 72
    seconds: float = 0.38
    weights: Weights = field(default_factory=Weights)
    learning_rate: float = 1e-4
    joint_learning_rate: float = 1e-4
    discriminator_learning_rate: float = 1e-4
    lr_decay: float = 0.999996
    warmup: int = 0
    cooldown: float = 0.0
    ema: float = 0.0
    clip: float = 1000.0
    discriminator_clip: float = 10.0
    loudness: float | None = None
    gain_db: float = 0.0
    phase_augmentation: bool = False
    mel_scales_per_step: int | None = None
    adversarial_seconds: float | None = None
    max_codebook_loss: float = 50.0
    validation: str | None = None
    validation_split: str = "validation"
    validation_min_seconds: float = 2.0
    validate_every: int = 1000
    checkpoint_every: int = 500
    quantizer_init_seconds: float = 900.0
    mixed_precision: str = "auto"
    compile: bool = False
    tracker: str = "tensorboard"
    seed: int = 0
    runs: str = "runs"


def main(argv: list[str] | None = None) -> int:
    s = parse_settings(Settings, Path(__file__).with_suffix(".yaml"), argv)
    run = Path(s.runs) / s.name
    accelerator = Accelerator(
        mixed_precision=pick_precision(s.mixed_precision),
        log_with=None if s.tracker == "none" else s.tracker,
        project_dir=run,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    say = accelerator.print
    set_seed(s.seed)

    # Data, models, optimisers.
    codec = make_trainable(s.architecture, s.model)
    if s.start_from:
        load_into(codec, Path(s.start_from))
    discriminator = Discriminator(**s.discriminator)
    if s.start_discriminator:
        discriminator = Discriminator.from_pretrained(s.start_discriminator).train()
    with accelerator.main_process_first():
        claim_run(run, s)
        corpora = [open_corpus(c, split="train") for c in s.corpora]
        crops = AudioCrops(corpora, codec.sample_rate, run / "cache")
    heard = open_corpus(
        s.validation or s.corpora[0],
        split=s.validation_split,
        min_seconds=s.validation_min_seconds,
    )
    n_samples = round(s.seconds * codec.sample_rate)
    say(f"{crops.seconds / 3600:.2f} h of audio, {len(crops.rejections)} clips rejected")
    for rejection in crops.rejections:
        say(f"  rejected {rejection.source}: {rejection.reason}")
    if not s.start_from:
        codec.start_from(crops.batch(-1 % 2**31, seed=s.seed, batch_size=200, n_samples=n_samples))
    average = copy.deepcopy(codec).eval().requires_grad_(False)

    adamw = {"betas": (0.8, 0.99), "fused": True}
    optimizer = torch.optim.AdamW(codec.parameters(), lr=s.learning_rate, **adamw)
    critic_optimizer = torch.optim.AdamW(
        discriminator.parameters(), lr=s.discriminator_learning_rate, **adamw
    )
    mel = MultiScaleMel(codec.sample_rate, scales_per_step=s.mel_scales_per_step)
    distance = SpectralDistance()
    mel, distance = mel.to(accelerator.device), distance.to(accelerator.device)
    network = torch.compile(codec) if s.compile else codec
    network, discriminator, optimizer, critic_optimizer, average = accelerator.prepare(
        network, discriminator, optimizer, critic_optimizer, average
    )
    adversary = Adversary(accelerator, discriminator, critic_optimizer, s.discriminator_clip)
    encoder = list(codec.encoder_parameters())
    phases = Phases(s.steps, s.continuous_steps, s.decoder_steps, s.adversarial_start)
    checkpoints = Checkpoints(run / "checkpoints")
    step, state = checkpoints.resume(accelerator)
    history = state.get("history", [])
    seconds_before = state.get("seconds", 0.0)
    if step:
        say(f"continuing at step {step} of {s.steps}")
    if accelerator.is_main_process:
        save_settings(run, s, audio_hours=crops.seconds / 3600, audio=crops.fingerprint)
        accelerator.init_trackers("logs")
    started = time.monotonic()

    interrupt = Interrupt()
    bar = tqdm(total=s.steps, initial=step, unit="step", disable=not accelerator.is_main_process)
    while step < s.steps:
        phase = phases.at(step)
        torch.manual_seed(step_seed(s.seed, step, accelerator.process_index))
        if step == s.continuous_steps and step and not state.get("quantizer_ready"):
            sample = crops.batch(
                step,
                seed=s.seed + 1,
                batch_size=max(1, int(s.quantizer_init_seconds / s.seconds)),
                n_samples=n_samples,
            ).to(accelerator.device)
            codec.load_state_dict(average.state_dict() if s.ema else codec.state_dict())
            left = codec.init_quantizer(sample)
            average.load_state_dict(codec.state_dict())
            state["quantizer_ready"] = True
            say(f"quantizer from data: energy left per level {np.round(left, 3).tolist()}")

        # Rate: warm-up and cool-down within the phase, slow decay over the run.
        peak = (
            s.learning_rate if phase.decoder_only or not phase.quantize else s.joint_learning_rate
        )
        rate = peak * s.lr_decay**step * cooled(step, phase, s.warmup, s.cooldown)
        for group in optimizer.param_groups:
            group["lr"] = rate

        # Audio of this step, the same after a resume.
        index = step * accelerator.num_processes + accelerator.process_index
        audio = crops.batch(index, seed=s.seed, batch_size=s.batch_size, n_samples=n_samples)
        generator = torch.Generator().manual_seed(s.seed + index)
        audio = augment(
            audio,
            codec.sample_rate,
            loudness=s.loudness,
            gain_db=s.gain_db,
            phase=s.phase_augmentation,
            generator=generator,
        )
        audio = audio.to(accelerator.device)

        # Codec: reconstruct.
        with accelerator.autocast():
            out = network(audio, quantize=phase.quantize)
        fake = out.waveform.float()
        losses = {
            "mel": mel(fake, audio),
            "spectral": distance(fake, audio),
            "commitment": out.commitment_loss,
            "codebook": out.codebook_loss,
        }
        codebook_loss = float(losses["codebook"].detach())
        if not codebook_loss <= s.max_codebook_loss:
            raise SystemExit(
                f"stopped at step {step}: codebook loss {codebook_loss:.3g} is over the limit of "
                f"{s.max_codebook_loss:g}, the quantizer diverges; lower joint_learning_rate, or "
                f"give decoder_steps. The last checkpoint is in {checkpoints.folder}"
            )

        # Discriminators: tell real from fake, on a part of each crop if asked.
        if phase.adversarial:
            part = n_samples
            if s.adversarial_seconds is not None:
                part = round(s.adversarial_seconds * codec.sample_rate)
            seen = part_of(n_samples, part, generator)
            losses["discriminator"] = adversary.learn(audio[..., seen], fake[..., seen])
            if step >= s.adversarial_start + s.adversarial_warmup:
                losses |= adversary.judge(audio[..., seen], fake[..., seen])

        total = sum(getattr(s.weights, k) * v for k, v in losses.items() if hasattr(s.weights, k))
        optimizer.zero_grad()
        accelerator.backward(total)
        if phase.decoder_only:
            for parameter in encoder:
                parameter.grad = None
        accelerator.clip_grad_norm_(codec.parameters(), s.clip)
        optimizer.step()
        ema_update(average, codec, s.ema)
        step += 1
        bar.update()

        if step % 20 == 0 or step == s.steps:
            values = {k: float(v.detach()) for k, v in losses.items()}
            accelerator.log({"rate": rate, **values}, step=step)
            bar.set_postfix({k: f"{v:.3g}" for k, v in values.items() if k != "spectral"})
        interrupted = interrupt.agreed(accelerator)
        if (step % s.validate_every == 0 or step == s.steps) and accelerator.is_main_process:
            scores = validate(average, heard, run / "samples", quantize=phase.quantize)
            wall = seconds_before + time.monotonic() - started
            history.append({"step": step, "minutes": wall / 60, **scores})
            accelerator.log({k: v for k, v in scores.items() if isinstance(v, float)}, step=step)
            bar.write(f"step {step}, {wall / 60:.1f} min: {scores}")
            write_json(run / "metrics.json", {"history": history, "final": history[-1]})
            average.save(run / "codec")
            accelerator.unwrap_model(discriminator).save_pretrained(run / "discriminator")
        if step % s.checkpoint_every == 0 or step == s.steps or interrupted:
            state |= {"history": history, "seconds": seconds_before + time.monotonic() - started}
            checkpoints.save(accelerator, step, state)
        if interrupted:
            say(f"interrupted at step {step}: checkpoint written; the same command goes on")
            return 130
    bar.close()
    interrupt.release()
    accelerator.end_training()
    say(f"codec: {run / 'codec'}; discriminators: {run / 'discriminator'}")
    return 0


if __name__ == "__main__":
    run_recipe(main)
