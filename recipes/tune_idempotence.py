"""Tune a codec so that it stops drifting: Code Drift's fine-tuning (O'Reilly et al., section IV).

    accelerate launch recipes/tune_idempotence.py --codec speech-16k --loss code \
        --corpora '[en.parquet, es.parquet, fr.parquet, it.parquet]'

The quantizer stays as it is, dropout of levels is off, and the codec's own training losses go on;
one idempotence loss times a weight is added. Without `--weight`, each weight of `sweep` is tried
for `sweep_steps`, and the largest whose validation loss holds is taken. The same command again
continues an interrupted run.
"""

from __future__ import annotations

import copy
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import set_seed
from tqdm import tqdm

from tokgen.codec.base import Codec
from tokgen.codec_training.adversary import Adversary, part_of
from tokgen.codec_training.augment import augment
from tokgen.codec_training.crops import AudioCrops
from tokgen.codec_training.discriminators.ensemble import Discriminator, find_discriminator
from tokgen.codec_training.idempotence import Reencoder
from tokgen.codec_training.phases import Phase, cooled
from tokgen.codec_training.validation import Tuned, validate_tuned
from tokgen.corpus.listed import open_corpus
from tokgen.drift.passes import DriftClips
from tokgen.nn.ema import ema_update
from tokgen.nn.spectral_losses import MultiScaleMel, SpectralDistance
from tokgen.runs.accelerator import pick_precision, step_seed
from tokgen.runs.checkpoints import Checkpoints
from tokgen.runs.folder import write_json
from tokgen.runs.interrupts import Interrupt, plain_errors, run_recipe
from tokgen.runs.settings import claim_run, parse_settings, save_settings
from tokgen.zoo.lookup import load_codec


@dataclass(frozen=True)
class Weights:
    """Weights of the codec's own losses; DAC's, and `spectral` for the complex distance."""

    mel: float = 15.0
    spectral: float = 0.0
    feature: float = 2.0
    adversarial: float = 1.0
    commitment: float = 0.25


@dataclass(frozen=True)
class Settings:
    """Settings of a tuning run.

    Attributes:
        name: the run's folder is runs/<name>; None makes one of the codec and the loss.
        codec: name in the zoo, folder or hub id; its stages must be open.
        loss: "code", "proj" or "enc".
        weight: of that loss (lambda); None sweeps.
        sweep: weights to try, and
        sweep_steps: how long each.
        sweep_tolerance: a weight holds if its validation loss is over that of the untuned codec
            by at most this share.
        passes: how often the output is encoded again in training. 1 is the paper's.
        later_weight: mel and spectral losses are taken on the outputs of later passes too, with
            this weight beside 1 for the first. 0 is the paper's.
        later_target: what those outputs are compared with: "original", or "first", the first
            output, which the codec can reach exactly.
        hold_first: keep the idempotence loss's gradient out of the first encoding, which otherwise
            learns to choose codes that are easier to find again; costs one decoding more.
        drifted_passes: each step begins with 0 to so many passes without gradient, drawn at random,
            and the codec's own losses still compare with the original.
        corpora: folders, Parquet files, saved datasets or hub ids; their train splits.
        steps: of the final tuning.
        start_discriminator: a saved discriminator; "auto" takes `discriminator/` beside the
            codec's weights if there is one; None starts anew.
        discriminator: settings of a new `Discriminator`.
        discriminator_warmup: steps in which a new discriminator trains alone, before the first.
        adversarial_share: share of the steps, the last ones, that hear the discriminator. 1 is
            the paper's; less saves time where the discriminator is what costs it.
        batch_size: crops per process and step.
        seconds: per crop.
        cooldown: share of the run's end in which the rate falls to 5 %.
        ema: decay of the averaged weights, which are validated and saved; 0 for none.
        loudness: LUFS that crops are brought to (DAC: -16); None leaves their level.
        gain_db: random level changes after that, dB to either side.
        phase_augmentation: rotate the phase of each crop by a random angle.
        mel_scales_per_step: mel scales drawn per step; None takes all seven.
        adversarial_seconds: part of each crop that the discriminators see; None for all.
        validation: corpus for validation; None takes the first of `corpora`.
        validation_passes: passes of the drift protocol at each validation.
    """

    name: str | None = None
    codec: str = "speech-16k"
    loss: str = "code"
    weight: float | None = None
    sweep: list[float] = field(default_factory=lambda: [1.0, 10.0, 100.0, 1000.0])
    sweep_steps: int = 5000
    sweep_tolerance: float = 0.02
    passes: int = 1
    later_weight: float = 0.0
    later_target: str = "original"
    hold_first: bool = False
    drifted_passes: int = 0
    corpora: list[str] = field(default_factory=lambda: ["recipes/data/allison"])
    steps: int = 50000
    start_discriminator: str | None = "auto"
    discriminator: dict = field(default_factory=dict)
    discriminator_warmup: int = 1000
    adversarial_share: float = 1.0
    batch_size: int = 72
    seconds: float = 0.38
    weights: Weights = field(default_factory=Weights)
    learning_rate: float = 1e-4
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
    validation: str | None = None
    validation_split: str = "validation"
    validation_min_seconds: float = 2.0
    validation_passes: int = 10
    validate_every: int = 1000
    checkpoint_every: int = 500
    mixed_precision: str = "auto"  # bfloat16 moves some codes that float32 would give
    tracker: str = "tensorboard"
    seed: int = 0
    runs: str = "runs"


def main(argv: list[str] | None = None) -> int:
    s = parse_settings(Settings, Path(__file__).with_suffix(".yaml"), argv)
    with plain_errors():
        if s.later_target not in ("original", "first"):
            raise ValueError(f"later_target {s.later_target!r}: known are 'original' and 'first'")
        base = load_codec(s.codec)
        Reencoder(base, s.loss, s.passes, hold_first=s.hold_first)
        find_discriminator(s.start_discriminator, s.codec)
    run = Path(s.runs) / (s.name or f"{Path(s.codec).name}-{s.loss}")
    accelerator = Accelerator(
        mixed_precision=pick_precision(s.mixed_precision),
        log_with=None if s.tracker == "none" else s.tracker,
        project_dir=run,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    say = accelerator.print
    set_seed(s.seed)

    # Data.
    rate = base.spec.sample_rate
    with plain_errors(), accelerator.main_process_first():
        claim_run(run, s, codec=base.spec.as_dict())
        corpora = [open_corpus(c, split="train") for c in s.corpora]
        crops = AudioCrops(corpora, rate, run / "cache")
        claim_run(run, s, audio=crops.fingerprint)
        heard = open_corpus(
            s.validation or s.corpora[0],
            split=s.validation_split,
            min_seconds=s.validation_min_seconds,
        )
        clips = DriftClips(heard)
    say(f"{crops.seconds / 3600:.2f} h of audio, {len(crops.rejections)} clips rejected")
    for rejection in crops.rejections:
        say(f"  rejected {rejection.source}: {rejection.reason}")
    if accelerator.is_main_process:
        save_settings(run, s, codec=base.spec.as_dict(), audio=crops.fingerprint)
        accelerator.init_trackers("logs")

    # The weight: the largest that holds the validation loss.
    weight = s.weight
    if weight is None:
        weight = sweep(s, base, accelerator, crops, clips, run)
        if weight is None:
            return 130
    if tune(s, base, weight, s.steps, accelerator, crops, clips, run) is None:
        return 130
    accelerator.end_training()
    say(f"codec: {run / 'codec'}; discriminators: {run / 'discriminator'}")
    return 0


def sweep(
    s: Settings,
    base: Codec,
    accelerator: Accelerator,
    crops: AudioCrops,
    clips: DriftClips,
    run: Path,
) -> float | None:
    """Tune with each weight for a while; the largest that holds, None when interrupted."""
    record = run / "sweep.json"
    found: dict[str, Any] = json.loads(record.read_text()) if record.is_file() else {}
    if "untuned" not in found:
        found["untuned"] = asdict(validate(s, base.to(accelerator.device), clips))
    limit = (1 + s.sweep_tolerance) * found["untuned"]["loss"]
    for weight in s.sweep:
        if f"{weight:g}" not in found:
            folder = run / "sweep" / f"{weight:g}"
            scores = tune(s, base, weight, s.sweep_steps, accelerator, crops, clips, folder)
            if scores is None:
                return None
            found[f"{weight:g}"] = asdict(scores)
        if accelerator.is_main_process:
            write_json(record, found)
        accelerator.print(f"weight {weight:g}: {found[f'{weight:g}']}")
    holding = [w for w in s.sweep if found[f"{w:g}"]["loss"] <= limit]
    if not holding:
        raise SystemExit(
            f"error: no weight of {s.sweep} holds the validation loss of "
            f"{found['untuned']['loss']:.4g} within {s.sweep_tolerance:.0%}: give smaller ones "
            f"(--sweep), a larger --sweep_tolerance, or a --weight; the trials are in {record}"
        )
    accelerator.print(f"taking weight {max(holding):g}")
    return max(holding)


def tune(
    s: Settings,
    base: Codec,
    weight: float,
    steps: int,
    accelerator: Accelerator,
    crops: AudioCrops,
    clips: DriftClips,
    run: Path,
) -> Tuned | None:
    """Train from `base` and return the last validation; None when interrupted."""
    accelerator.free_memory()
    set_seed(s.seed)  # a new discriminator is the same for every weight, and after a resume
    codec = copy.deepcopy(base)
    rate = codec.spec.sample_rate
    reencoder = Reencoder(codec, s.loss, s.passes, hold_first=s.hold_first)
    average = copy.deepcopy(codec)
    saved = find_discriminator(s.start_discriminator, s.codec)
    discriminator = (
        Discriminator(**s.discriminator) if saved is None else Discriminator.from_pretrained(saved)
    ).train()
    alone = s.discriminator_warmup if saved is None else 0  # steps before the codec moves
    accelerator.print(f"{run.name}: discriminator {saved or f'new, alone for {alone} steps'}")
    adamw = {"betas": (0.8, 0.99), "fused": True}
    optimizer = torch.optim.AdamW(reencoder.trainable_parameters(), lr=s.learning_rate, **adamw)
    critic_optimizer = torch.optim.AdamW(
        discriminator.parameters(), lr=s.discriminator_learning_rate, **adamw
    )
    mel = MultiScaleMel(rate, scales_per_step=s.mel_scales_per_step).to(accelerator.device)
    distance = SpectralDistance().to(accelerator.device)
    network, discriminator, optimizer, critic_optimizer, _ = accelerator.prepare(
        reencoder, discriminator, optimizer, critic_optimizer, average.model
    )
    adversary = Adversary(accelerator, discriminator, critic_optimizer, s.discriminator_clip)
    checkpoints = Checkpoints(run / "checkpoints")
    step, state = checkpoints.resume(accelerator)
    history = state.get("history", [])
    seconds_before = state.get("seconds", 0.0)
    scores = Tuned(**history[-1]["scores"]) if history else None
    if step:
        accelerator.print(f"{run.name}: continuing at step {step} of {alone + steps}")
    started = time.monotonic()
    n_samples = round(s.seconds * rate)
    part = n_samples if s.adversarial_seconds is None else round(s.adversarial_seconds * rate)

    interrupt = Interrupt()
    bar = tqdm(
        desc=f"{s.loss} x {weight:g}",
        total=alone + steps,
        initial=step,
        unit="step",
        disable=not accelerator.is_main_process,
    )
    while step < alone + steps:
        torch.manual_seed(step_seed(s.seed, step, accelerator.process_index))
        tuned = step - alone  # steps that the codec has been trained for
        factor = cooled(tuned, Phase(0, steps, True, False, True), s.warmup, s.cooldown)
        for group in optimizer.param_groups:
            group["lr"] = s.learning_rate * s.lr_decay ** max(0, tuned) * factor

        # Audio of this step, the same after a resume.
        index = step * accelerator.num_processes + accelerator.process_index
        audio = crops.batch(index, seed=s.seed, batch_size=s.batch_size, n_samples=n_samples)
        generator = torch.Generator().manual_seed(s.seed + index)
        audio = augment(
            audio,
            rate,
            loudness=s.loudness,
            gain_db=s.gain_db,
            phase=s.phase_augmentation,
            generator=generator,
        ).to(accelerator.device)

        # Encode, decode, and encode again.
        with accelerator.autocast(), torch.set_grad_enabled(tuned >= 0):
            drifted = int(torch.randint(0, s.drifted_passes + 1, (), generator=generator))
            out = network(audio, drifted=drifted)
        outputs = [w.float() for w in out.waveforms]
        losses = {
            "mel": mel(outputs[0], audio),
            "spectral": distance(outputs[0], audio),
            "commitment": out.commitment_loss,
            "idempotence": out.drift,
        }
        if s.later_weight and len(outputs) > 1:
            target = outputs[0].detach() if s.later_target == "first" else audio
            for name, loss in (("mel", mel), ("spectral", distance)):
                later = torch.stack([loss(w, target) for w in outputs[1:]]).mean()
                losses[name] = losses[name] + s.later_weight * later
        if tuned < 0 or tuned >= steps - round(s.adversarial_share * steps):
            seen = part_of(n_samples, part, generator)
            losses["discriminator"] = adversary.learn(audio[..., seen], outputs[0][..., seen])
            if tuned >= 0:
                losses |= adversary.judge(audio[..., seen], outputs[0][..., seen])
        if tuned >= 0:
            own = sum(getattr(s.weights, k) * v for k, v in losses.items() if hasattr(s.weights, k))
            optimizer.zero_grad()
            accelerator.backward(own + weight * out.drift)
            accelerator.clip_grad_norm_(network.parameters(), s.clip)
            optimizer.step()
            ema_update(average.model, codec.model, s.ema)
        step += 1
        bar.update()

        values = {k: float(v.detach()) for k, v in losses.items()} | {"match": float(out.match)}
        if step % 20 == 0 or step == alone + steps:
            accelerator.log({f"{run.name}/{k}": v for k, v in values.items()}, step=step)
            bar.set_postfix({k: f"{v:.3g}" for k, v in values.items()})
        interrupted = interrupt.agreed(accelerator)
        last = step == alone + steps
        if step % s.validate_every == 0 or last:
            if accelerator.is_main_process:
                average.save_pretrained(run / "codec")
                accelerator.unwrap_model(discriminator).save_pretrained(run / "discriminator")
            accelerator.wait_for_everyone()
            scores = validate(s, load_codec(run / "codec").to(accelerator.device), clips)
            wall = seconds_before + time.monotonic() - started
            history.append({"step": step, "minutes": wall / 60, "scores": asdict(scores)})
            if accelerator.is_main_process:
                bar.write(f"step {step}, {wall / 60:.1f} min: {scores}")
                write_json(run / "metrics.json", {"weight": weight, "history": history})
        if step % s.checkpoint_every == 0 or last or interrupted:
            state = {"history": history, "seconds": seconds_before + time.monotonic() - started}
            checkpoints.save(accelerator, step, state)
        if interrupted:
            accelerator.print(f"interrupted at step {step}: the same command goes on")
            return None
    bar.close()
    interrupt.release()
    return scores


def validate(s: Settings, codec: Codec, clips: DriftClips) -> Tuned:
    """On every process alike, so that all take the same weight."""
    weights = {"mel": s.weights.mel, "spectral": s.weights.spectral}
    return validate_tuned(codec, clips, passes=s.validation_passes, weights=weights)


if __name__ == "__main__":
    run_recipe(main)
