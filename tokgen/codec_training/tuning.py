"""Tuning of a codec with an idempotence loss, as in Code Drift (O'Reilly et al., section IV).

    settings = TuningSettings(codec="speech-16k", loss="code", weight=10.0, corpora=["my_audio"])
    scores = tune_codec(settings)
    codec = tokgen.load_codec(tuning_folder(settings) / "codec")

The quantizer is frozen and its dropout of levels is off. One idempotence loss, times a weight, is
added to the codec's own training losses. The loss "none" adds none of them.
"""

from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from tokgen.codec.base import Codec
from tokgen.codec.identity import unclaimed
from tokgen.codec.stages import TUNABLE
from tokgen.codec_training.card import card_facts
from tokgen.codec_training.crops import AudioCrops, open_crops, open_validation
from tokgen.codec_training.discriminators.kinds import load_discriminator, make_discriminator
from tokgen.codec_training.discriminators.saved import find_discriminator
from tokgen.codec_training.idempotence import Reencoder, rotate
from tokgen.codec_training.loop import CodecTraining
from tokgen.codec_training.phases import Phase, rate_factor
from tokgen.codec_training.settings import TuningSettings, tuning_folder
from tokgen.codec_training.sweep import choose_weight
from tokgen.codec_training.validation import Tuned, validate_tuned
from tokgen.drift.clips import DriftClips
from tokgen.nn.cards import ModelCardFacts
from tokgen.runs.accelerator import make_accelerator, start_trackers
from tokgen.runs.folder import write_json
from tokgen.runs.locks import lock_folder
from tokgen.runs.settings import claim_run, save_settings
from tokgen.zoo.adapters.dac_training import fold_weight_norm, has_weight_norm
from tokgen.zoo.lookup import load_codec

__all__ = ["make_reencoder", "mix", "open_tunable", "tune", "tune_codec"]


def tune_codec(
    settings: TuningSettings, *, command: str = "", audio: Path | None = None
) -> Tuned | None:
    """Choose the weight of the loss, unless it is given, and tune. Continues an interrupted run.

    The run's folder is `tuning_folder(settings)`: `codec/` and `discriminator/` are the results,
    `metrics.json` has the weight and the validations, `sweep.json` the trials of weights.

    Args:
        command: the command that repeats this, for the card.
        audio: folder whose `cache/` keeps the training audio. Runs on the same corpora can share
            it. None means the run's folder.
    Returns:
        the last validation; None if interrupted.
    Raises:
        BlockingIOError: another process works in the folder.
        ValueError, OSError: wrong settings or data, or the folder holds another run.
        SystemExit: no weight of the sweep holds the validation loss.
    """
    base, run = open_tunable(settings), tuning_folder(settings)
    with lock_folder(run):
        return _sweep_and_tune(settings, base, run, command, audio)


def open_tunable(*settings: TuningSettings) -> Codec:
    """Load the codec of some trainings, before anything of a run is made.

    Args:
        settings: of one codec.
    Raises:
        ValueError, OSError: the codec or a discriminator does not load, or one of the trainings
            cannot tune the codec.
    """
    base = load_codec(settings[0].codec)
    checked = set()
    for s in settings:
        if (key := (s.loss, s.freeze_encoder)) not in checked:
            make_reencoder(s, base)
            checked.add(key)
        find_discriminator(s.start_discriminator, s.codec)
    return base


def _sweep_and_tune(
    s: TuningSettings, base: Codec, run: Path, command: str, audio: Path | None
) -> Tuned | None:
    accelerator = make_accelerator(run, s.mixed_precision, s.tracker, find_unused_parameters=True)
    set_seed(s.seed)

    # 1. Data.
    with accelerator.main_process_first():
        free = ("workers", "untuned_share", *unclaimed(base.spec, "codec"))
        claim_run(run, s, free=free, codec=base.spec.as_dict())
        crops = open_crops(s, base.spec.sample_rate, audio or run)
        claim_run(run, s, free=free, audio=crops.fingerprint)
        clips = DriftClips(open_validation(s))
    licence = base.spec.licence
    card = card_facts(s, crops, base=base.spec.name, licence=licence, command=command)
    accelerator.print(crops.summary())
    if accelerator.is_main_process:
        save_settings(run, s, codec=base.spec.as_dict(), audio=crops.fingerprint)
        start_trackers(accelerator, s)

    # 2. The weight: the largest that holds the validation loss.
    def try_weight(weight: float) -> Tuned | None:
        folder = run / "sweep" / f"{weight:g}"
        return tune(s, base, weight, s.sweep_steps, accelerator, crops, clips, folder, card)

    weight = s.weight if s.loss != "none" else 0.0
    if weight is None:
        weight = choose_weight(
            s.sweep,
            s.sweep_tolerance,
            lambda: _validate(s, base.to(accelerator.device), clips),
            try_weight,
            run / "sweep.json",
            accelerator,
        )

    # 3. The tuning.
    scores = None
    if weight is not None:
        scores = tune(s, base, weight, s.steps, accelerator, crops, clips, run, card)
    accelerator.end_training()
    if scores is not None:
        accelerator.print(f"codec: {run / 'codec'}; discriminators: {run / 'discriminator'}")
    return scores


def tune(
    s: TuningSettings,
    base: Codec,
    weight: float,
    steps: int,
    accelerator: Accelerator,
    crops: AudioCrops,
    clips: DriftClips,
    run: Path,
    card: ModelCardFacts,
) -> Tuned | None:
    """Tune a copy of `base` in the folder `run`, with one weight.

    Returns:
        the last validation; None if interrupted.
    """
    accelerator.free_memory()
    set_seed(s.seed)  # a new discriminator is the same for every weight, and after a resume
    reencoder = make_reencoder(s, base)
    saved = find_discriminator(s.start_discriminator, s.codec)
    if saved is None:
        alone = s.discriminator_warmup if s.adversarial_share else 0
        discriminator = make_discriminator(s.discriminator)
    else:
        discriminator, alone = load_discriminator(saved).train(), 0
    accelerator.print(
        f"{run.name}: {s.loss} x {weight:g}, discriminator "
        f"{saved or f'new, alone for {alone} steps'}"
    )
    training = CodecTraining(
        accelerator,
        reencoder,
        discriminator,
        crops,
        s,
        run,
        steps=alone + steps,
        first=alone,
        name=run.name,
    )
    for step in training.steps():
        tuned = step - alone  # steps of the codec; below 0 the discriminator trains alone
        factor = rate_factor(tuned, Phase(0, steps), s.warmup, s.cooldown)
        training.set_rates(max(0, tuned), factor)

        # Encode, decode, and encode again.
        audio, generator = training.audio(step)
        drifted = int(torch.randint(0, s.drifted_passes + 1, (), generator=generator))
        shifts = None
        if s.shift:
            size = (drifted + s.passes, len(audio))
            shifts = torch.randint(-s.shift, s.shift + 1, size, generator=generator)
        with accelerator.autocast(), torch.set_grad_enabled(tuned >= 0):
            out = training.network(audio, drifted=drifted, shifts=shifts)
        first, *later = [w.float() for w in out.waveforms]
        losses = training.distances(first, audio)
        losses |= {"commitment": out.commitment_loss, "idempotence": out.drift}
        if s.later_weight and later:
            target = first.detach() if s.later_target == "first" else audio
            found = [
                training.distances(waveform, rotate(target, offset))
                for waveform, offset in zip(later, out.offsets[1:], strict=True)
            ]
            for name in ("mel", "spectral"):
                mean = torch.stack([distances[name] for distances in found]).mean()
                losses[name] = losses[name] + s.later_weight * mean

        # The discriminators train first, and at the end of the tuning.
        if tuned < 0 or tuned >= steps - round(s.adversarial_share * steps):
            losses |= training.adversary.step(audio, first, generator, judge=tuned >= 0)
        if tuned >= 0:
            training.descend(s.weights.total(losses) + weight * out.drift)
        training.log({**losses, "match": out.match})

        # Save, and validate what was saved.
        if training.validates:
            if accelerator.is_main_process:
                tuned_codec: Any = mix(training.averaged().codec, base, s.untuned_share)
                tuned_codec.save_pretrained(run / "codec", card, dtype=_saved_dtype(tuned_codec, s))
                training.save_discriminator(run / "discriminator")
            accelerator.wait_for_everyone()
            scores = _validate(s, load_codec(run / "codec").to(accelerator.device), clips)
            training.record({"scores": asdict(scores)})
            if accelerator.is_main_process:
                results = {"weight": weight, "history": training.history}
                write_json(run / "metrics.json", results)
    return None if training.interrupted else Tuned(**training.history[-1]["scores"])


def make_reencoder(s: TuningSettings, base: Codec) -> Reencoder:
    """Make the module that tuning trains, with a copy of `base`.

    Raises:
        ValueError: a codec that cannot be copied, tuned or saved.
    """
    if not getattr(base, "savable", True):
        raise ValueError(
            f"{base.spec.name} cannot be tuned, because its network cannot be saved: use {TUNABLE}"
        )
    try:
        copied = copy.deepcopy(base)
    except RuntimeError as error:  # of torch's old weight norm, as in SpeechTokenizer
        raise ValueError(
            f"{base.spec.name} cannot be tuned, because its network cannot be copied: use {TUNABLE}"
        ) from error
    return Reencoder(
        copied,
        s.loss,
        s.passes,
        detach_target=s.detach_target,
        hold_first=s.hold_first,
        freeze_encoder=s.freeze_encoder,
    )


def mix(codec: Codec, other: Codec, share: float) -> Codec:
    """Return `codec` with its weights moved towards those of `other`.

    They change in place, unless the weight norm in which a DAC trains is folded into them first.

    Args:
        codec, other: codecs of one architecture.
        share: 0 leaves the weights as they are, 1 makes them those of `other`.
    """
    if share and has_weight_norm(codec.model) and not has_weight_norm(other.model):
        network: Any = codec.model
        codec = copy.copy(codec)
        codec.model = fold_weight_norm(network)
    theirs = other.model.state_dict()
    for name, weight in codec.model.state_dict().items():
        if share and weight.is_floating_point():
            weight.lerp_(theirs[name].to(weight), share)
    return codec


def _saved_dtype(codec: Codec, s: TuningSettings) -> torch.dtype | None:
    """Return the type to save weights in; None keeps float32, so that a frozen encoder stays."""
    dtype = getattr(codec, "trained_dtype", None)
    if dtype is None or not s.freeze_encoder:
        return dtype
    trained = {name for name, p in codec.model.named_parameters() if p.requires_grad}
    kept = [w for name, w in codec.model.state_dict().items() if name not in trained]
    exact = all(w.to(dtype).to(w.dtype).equal(w) for w in kept if w.is_floating_point())
    return dtype if exact else None


def _validate(s: TuningSettings, codec: Codec, clips: DriftClips) -> Tuned:
    """Validate on every process alike, so that all choose the same weight."""
    weights = {"mel": s.weights.mel, "spectral": s.weights.spectral}
    return validate_tuned(codec, clips, passes=s.validation_passes, weights=weights)
