"""Train a codec in phases: first without its quantizer, then only the decoder, then everything.

    accelerate launch -q recipes/train_codec.py --config recipes/train_codec.yaml \
        --corpora '[en.parquet, es.parquet, fr.parquet, it.parquet]'

Settings control the phases: a phase of 0 steps is skipped. `--architecture dac` with
`--continuous_steps 0 --adversarial_start 0` is DAC's own recipe. By default, losses,
discriminators and optimiser are DAC's (Kumar et al. 2023); the spectral distance is added here.
train_codec.encodec24k.yaml and train_codec.encodec48k.yaml have those of EnCodec (Défossez et al.
2022). Run the same command again to continue an interrupted run.
"""

from __future__ import annotations

from pathlib import Path

from tokgen.codec_training.settings import CodecTrainingSettings, check_sources
from tokgen.runs.interrupts import plain_errors, run_recipe
from tokgen.runs.locks import lock_folder
from tokgen.runs.settings import (
    begin_recipe,
    claim_run,
    command_of,
    parse_settings,
    save_settings,
)

if __name__ == "__main__":
    begin_recipe(CodecTrainingSettings, __file__, check_sources)

import numpy as np
from accelerate.utils import set_seed

from tokgen.codec_training.architectures import load_into, make_trainable
from tokgen.codec_training.card import card_facts
from tokgen.codec_training.crops import open_crops, open_validation
from tokgen.codec_training.discriminators.ensemble import find_discriminator
from tokgen.codec_training.discriminators.kinds import (
    check_fits,
    load_discriminator,
    make_discriminator,
)
from tokgen.codec_training.loop import CodecTraining
from tokgen.codec_training.phases import phase_at, rate_factor
from tokgen.codec_training.validation import validate
from tokgen.runs.accelerator import make_accelerator, start_trackers
from tokgen.runs.folder import write_json


def main(argv: list[str] | None = None) -> int:
    s = parse_settings(CodecTrainingSettings, Path(__file__).with_suffix(".yaml"), argv)
    run = Path(s.runs) / s.name
    with lock_folder(run):
        return train(s, run, command_of(__file__, argv))


def train(s: CodecTrainingSettings, run: Path, command: str) -> int:
    """Train in the folder `run`. Returns the exit code."""
    with plain_errors():
        accelerator = make_accelerator(
            run, s.mixed_precision, s.tracker, find_unused_parameters=True
        )
    set_seed(s.seed)

    # 1. Models and data.
    with plain_errors():
        variable = s.variable if s.quantizer == "variable" else None
        codec = make_trainable(s.architecture, s.model, variable)
        if s.start_from:
            load_into(codec, s.start_from)
        discriminator = make_discriminator(s.discriminator)
        if saved := find_discriminator(s.start_discriminator, s.start_from or ""):
            discriminator = load_discriminator(saved).train()
        check_fits(discriminator, codec.n_channels, codec.n_bandwidths)
        with accelerator.main_process_first():
            claim_run(run, s)
            crops = open_crops(s, codec.sample_rate, run, codec.n_channels)
        heard = open_validation(s)
    card = card_facts(s, crops, base=Path(s.start_from or "").name, command=command)
    accelerator.print(crops.summary())

    # 2. The training. It continues from a checkpoint if there is one.
    n_samples = round(s.seconds * codec.sample_rate)
    if not s.start_from:
        codec.fit_statistics(
            crops.batch(-1 % 2**31, seed=s.seed, batch_size=200, n_samples=n_samples)
        )
    with plain_errors():
        training = CodecTraining(
            accelerator,
            codec,
            discriminator,
            crops,
            s,
            run,
            steps=s.steps,
            compile=s.compile,
            balance=s.balancer,
        )
    encoder = codec.encoder_parameters()
    if accelerator.is_main_process:
        save_settings(run, s, audio_hours=crops.seconds / 3600, audio=crops.fingerprint)
        start_trackers(accelerator, s)

    # 3. Train, and validate from time to time.
    for step in training.steps():
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
        codec.moves_codebooks = not phase.decoder_only
        audio, generator = training.audio(step)
        with accelerator.autocast():
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
        if step >= s.adversarial_start:
            judge = step >= s.adversarial_start + s.adversarial_warmup
            losses |= training.adversary.step(
                audio, fake, generator, judge=judge, bandwidth=out.bandwidth
            )
        frozen = encoder if phase.decoder_only else ()
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
        return 130
    accelerator.print(f"codec: {run / 'codec'}; discriminators: {run / 'discriminator'}")
    return 0


if __name__ == "__main__":
    run_recipe(main)
