"""Training of a codec in phases: without its quantizer, then the decoder alone, then everything.

settings = CodecTrainingSettings(name="mine", corpora=["my_audio"], steps=20000)
history = train_codec(settings)
codec = tokgen.load_codec("runs/mine/codec")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed

from tokgen.codec_training.architectures import (
    load_into,
    make_continuous,
    make_trainable,
    open_trainable,
)
from tokgen.codec_training.card import card_facts
from tokgen.codec_training.crops import open_crops, open_validation
from tokgen.codec_training.discriminators.kinds import (
    check_fits,
    load_discriminator,
    make_discriminator,
)
from tokgen.codec_training.discriminators.saved import find_discriminator
from tokgen.codec_training.loop import CodecTraining
from tokgen.codec_training.phases import phase_at, rate_factor
from tokgen.codec_training.settings import AUTO, CodecTrainingSettings
from tokgen.codec_training.validation import validate
from tokgen.runs.accelerator import make_accelerator, start_trackers
from tokgen.runs.folder import write_json
from tokgen.runs.locks import lock_folder
from tokgen.runs.settings import claim_run, save_settings
from tokgen.zoo.finding import find_codec

__all__ = ["train_codec"]


def train_codec(
    settings: CodecTrainingSettings, *, command: str = "", audio: Path | None = None
) -> list[dict[str, Any]] | None:
    """Train a codec. Continues an interrupted run.

    The run's folder is runs/<name>: `codec/` and `discriminator/` are the results, `metrics.json`
    has the validations, and `samples/` some decoded audio.

    Args:
        command: the command that repeats this, for the card.
        audio: folder whose `cache/` keeps the training audio. Runs on the same corpora can share
            it. None means the run's folder.
    Returns:
        the validations; None if interrupted.
    Raises:
        BlockingIOError: another process works in the folder.
        ValueError, OSError: wrong settings or data, or the folder holds another run.
        SystemExit: the quantizer diverges.
    """
    run = Path(settings.runs) / settings.name
    with lock_folder(run):
        return _train(settings, run, command, audio)


def _train(
    s: CodecTrainingSettings, run: Path, command: str, kept: Path | None
) -> list[dict[str, Any]] | None:
    accelerator = make_accelerator(run, s.mixed_precision, s.tracker, find_unused_parameters=True)
    set_seed(s.seed)

    # 1. Models and data.
    variable = s.variable if s.quantizer == "variable" else None
    if s.architecture == AUTO:
        codec = open_trainable(s.start_from or "", s.model, variable)
    elif s.quantizer == "none":
        codec = make_continuous(s.architecture, s.model, s.latent_noise)
    else:
        codec = make_trainable(s.architecture, s.model, variable, new=not s.start_from)
    if s.start_from and s.architecture != AUTO:
        load_into(codec, s.start_from)
    discriminator, alone = make_discriminator(s.discriminator), s.discriminator_warmup
    if saved := find_discriminator(s.start_discriminator, s.start_from or ""):
        discriminator, alone = load_discriminator(saved).train(), 0
    check_fits(discriminator, codec.n_channels, codec.n_bandwidths)
    with accelerator.main_process_first():
        claim_run(run, s, free=("workers",))
        crops = open_crops(s, codec.sample_rate, kept or run, codec.n_channels)
        claim_run(run, s, free=("workers",), audio=crops.fingerprint)
    heard = open_validation(s)
    licence = find_codec(s.start_from).card["licence"] if s.start_from else ""
    base = Path(s.start_from or "").name
    card = card_facts(s, crops, base=base, licence=licence, command=command)
    accelerator.print(crops.summary())

    # 2. The training. It continues from a checkpoint if there is one.
    n_samples = round(s.seconds * codec.sample_rate)
    if not s.start_from:
        codec.fit_statistics(
            crops.batch(-1 % 2**31, seed=s.seed, batch_size=200, n_samples=n_samples)
        )
    training = CodecTraining(
        accelerator,
        codec,
        discriminator,
        crops,
        s,
        run,
        steps=alone + s.steps,
        first=alone,
        compile=s.compile,
        balance=s.balancer,
    )
    encoder = codec.encoder_parameters()
    if accelerator.is_main_process:
        save_settings(run, s, audio_hours=crops.seconds / 3600, audio=crops.fingerprint)
        start_trackers(accelerator, s)

    # 3. Train, and validate from time to time.
    for number in training.steps():
        step = max(0, number - alone)  # of the codec
        phase = phase_at(step, s)
        if step == s.continuous_steps and step and not training.state.get("quantizer_ready"):
            sample = crops.batch(
                step,
                seed=s.seed + 1,
                batch_size=max(1, int(s.quantizer_init_seconds / s.seconds)),
                n_samples=n_samples,
            ).to(accelerator.device)
            training.ema.apply()
            left = codec.init_quantizer(sample)
            training.ema.restart()
            training.state["quantizer_ready"] = True
            accelerator.print(
                f"quantizer from data: energy left per level {np.round(left, 3).tolist()}"
            )

        # The rate rises and falls within each phase, and decays slowly over the run.
        joint = phase.quantize and not phase.decoder_only
        peak = s.joint_learning_rate if joint else s.learning_rate
        factor = rate_factor(step, phase, s.warmup, s.cooldown)
        rate = training.set_rates(step, factor, peak)

        # The codec reconstructs the audio.
        learns = number >= alone  # before, the discriminators train alone
        codec.moves_codebooks = learns and not phase.decoder_only
        audio, generator = training.audio(number)
        with accelerator.autocast(), torch.set_grad_enabled(learns):
            out = training.network(audio, quantize=phase.quantize)
        fake = out.waveform.float()
        losses = training.distances(fake, audio)
        losses |= {"commitment": out.commitment_loss, "codebook": out.codebook_loss}
        if out.rate_loss is not None:
            losses["rate"] = out.rate_loss
        codebook_loss = float(out.codebook_loss.detach())
        if not codebook_loss <= s.max_codebook_loss:
            raise SystemExit(
                f"stopped at step {step}: the codebook loss is {codebook_loss:.3g}, over the limit "
                f"of {s.max_codebook_loss:g}, so the quantizer diverges. Lower "
                "joint_learning_rate or set decoder_steps. The last checkpoint is in "
                f"{training.checkpoints.folder}"
            )

        # The discriminators learn to tell it from the original, and the codec to deceive them.
        if step >= s.adversarial_start or not learns:
            judge = learns and step >= s.adversarial_start + s.adversarial_warmup
            losses |= training.adversary.step(
                audio, fake, generator, judge=judge, bandwidth=out.bandwidth
            )
        frozen = encoder if phase.decoder_only else ()
        if learns:
            training.descend(training.total(losses, fake), frozen=frozen)
        training.log({"learning_rate": rate, **losses})

        # Validate and save.
        if training.validates and accelerator.is_main_process:
            average = training.averaged()
            training.record(validate(average, heard, run / "samples", quantize=phase.quantize))
            average.save(run / "codec", card)
            training.save_discriminator(run / "discriminator")
            results = {"history": training.history, "final": training.history[-1]}
            write_json(run / "metrics.json", results)
    accelerator.end_training()
    if training.interrupted:
        return None
    accelerator.print(f"codec: {run / 'codec'}; discriminators: {run / 'discriminator'}")
    return training.history
