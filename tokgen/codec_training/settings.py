"""Settings of the recipes that train and tune codecs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tokgen.corpus.settings import check_corpus
from tokgen.quantizers.settings import VariableSettings
from tokgen.runs.checks import check_least, check_positive, check_shares
from tokgen.zoo.names import check_name

__all__ = [
    "AUTO",
    "DISCRIMINATORS",
    "LOSSES",
    "PAPER_LOSSES",
    "CodecLossWeights",
    "CodecTrainingSettings",
    "LossWeights",
    "SharedSettings",
    "TuningSettings",
    "check_sources",
    "tuning_folder",
]

PAPER_LOSSES = ("enc", "proj", "code")
LOSSES = (*PAPER_LOSSES, "margin")  # idempotence losses; "none" stands for none of them
DISCRIMINATORS = ("ensemble", "msstft")  # kinds
AUTO = "auto"  # architecture of the codec that a training starts from


@dataclass(frozen=True)
class LossWeights:
    """Weights of a codec's losses. The defaults are DAC's, which has no `spectral` and `time` loss.

    `commitment` (and `codebook`) multiply sums over levels. `time` is the L1 distance of waveforms.
    """

    mel: float = 15.0
    spectral: float = 0.0
    feature: float = 2.0
    adversarial: float = 1.0
    commitment: float = 0.25
    time: float = 0.0

    def __post_init__(self) -> None:
        check_least(self, **dict.fromkeys(vars(self), 0))

    def total(self, losses: Mapping[str, Any]) -> Any:
        """The weighted sum of losses (tensors); losses without a weight are left out."""
        weighted = [vars(self)[name] * loss for name, loss in losses.items() if name in vars(self)]
        return sum(weighted[1:], weighted[0])


@dataclass(frozen=True)
class CodecLossWeights(LossWeights):
    """Weights of all losses of a codec, its quantizer's included.

    `rate` multiplies the mean importance of a variable bitrate. VRVQ's authors' code has 2 with
    `alpha` 2, and 4 with `detach`.
    """

    codebook: float = 1.0
    rate: float = 2.0


@dataclass(frozen=True)
class SharedSettings:
    """Settings of every training of a codec.

    Attributes:
        corpora: folders, Parquet files, saved datasets or hub ids; their train splits are used.
        discriminator: a kind of discriminator, or its arguments with the kind as `kind`: "ensemble"
            (DAC's `Discriminator`, used without `kind` too) or "msstft" (EnCodec's
            `MultiScaleStftDiscriminator`, which needs `channels: 2` for stereo, and may have a
            discriminator for each of the codec's `bandwidths`).
        discriminator_share: share of the steps in which the discriminators train, drawn at random.
            EnCodec uses 2/3 at 24 kHz, 1/2 at 48 kHz.
        weights: of the losses.
        adversarial_loss: "least_squares" (DAC, a sum over discriminators), "hinge2" (EnCodec) or
            "hinge" (AudioCraft), means over discriminators.
        feature_loss: "l1" (DAC, a sum over discriminators and layers) or "relative" (EnCodec, a
            mean of distances over the magnitude of the real features).
        mel_loss: "log" (DAC, L1 of logarithms) or "power" (EnCodec, L1 of powers and L2 of
            logarithms).
        batch_size: crops per process and step.
        seconds: length of a crop.
        learning_rate: AdamW's for the codec, after `warmup` steps.
        discriminator_learning_rate: AdamW's for the discriminators.
        betas: AdamW's, for both.
        weight_decay: AdamW's, for both. 0 makes it Adam.
        lr_decay: factor on both rates per step.
        rate_steps_before: steps of an earlier training whose decay the rates continue.
        warmup: steps in which the rate rises.
        cooldown: share of the steps, at the end, in which the rate falls to 5 %.
        ema: decay of the averaged weights, which are validated and saved; 0 for none.
        average: share of the steps, at the end, whose weights are averaged uniformly in place of
            `ema`, as in stochastic weight averaging (Izmailov et al. 2018); 0 for none.
        clip: limit of the norm of the codec's gradient.
        discriminator_clip: limit of the norm of the discriminators' gradient.
        loudness: level that crops are brought to, in LUFS (DAC: -16); None leaves it.
        speed: play each crop at a random factor, from 1 - speed to 1 + speed, as if other people
            spoke.
        workers: processes that draw crops ahead; 0 draws them in the training process. Crops do not
            depend on it.
        gain_db: each crop's level then changes at random by up to this many dB.
        phase_augmentation: rotate the phase of each crop by a random angle.
        mel_scales_per_step: mel scales of the "log" loss drawn per step; None uses all seven.
        adversarial_seconds: length of the part of each crop that the discriminators judge; None for
            the whole crop.
        validation: validation corpus; None uses the first of `corpora`.
        validation_split: split of it.
        validation_min_seconds: shorter clips are left out, since PESQ needs some speech.
        validate_every: steps between validations.
        checkpoint_every: steps between checkpoints.
        mixed_precision: "auto", "no", "bf16" or "fp16". bfloat16 changes some codes.
        tracker: "none", "tensorboard", "wandb" ...
        seed: seed of crops, augmentation and initial weights.
        runs: parent folder of the runs.
    """

    corpora: list[str] = field(default_factory=lambda: ["recipes/data/allison"])
    discriminator: dict[str, Any] | str = field(default_factory=dict)
    discriminator_share: float = 1.0
    weights: LossWeights = field(default_factory=LossWeights)
    adversarial_loss: Literal["least_squares", "hinge", "hinge2"] = "least_squares"
    feature_loss: Literal["l1", "relative"] = "l1"
    mel_loss: Literal["log", "power"] = "log"
    batch_size: int = 72
    seconds: float = 0.38
    learning_rate: float = 1e-4
    discriminator_learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 0.01
    lr_decay: float = 0.999996
    rate_steps_before: int = 0
    warmup: int = 0
    cooldown: float = 0.0
    ema: float = 0.0
    average: float = 0.0
    clip: float = 1000.0
    discriminator_clip: float = 10.0
    loudness: float | None = None
    speed: float = 0.0
    workers: int = 0
    gain_db: float = 0.0
    phase_augmentation: bool = False
    mel_scales_per_step: int | None = None
    adversarial_seconds: float | None = None
    validation: str | None = None
    validation_split: str = "validation"
    validation_min_seconds: float = 2.0
    validate_every: int = 1000
    checkpoint_every: int = 500
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    tracker: str = "none"
    seed: int = 0
    runs: str = "runs"

    def __post_init__(self) -> None:
        check_least(self, batch_size=1, warmup=0, gain_db=0, mel_scales_per_step=1, seed=0)
        check_least(self, validate_every=1, checkpoint_every=1, validation_min_seconds=0)
        check_positive(self, "seconds", "learning_rate", "discriminator_learning_rate")
        check_positive(self, "lr_decay", "clip", "discriminator_clip", "adversarial_seconds")
        check_shares(self, "cooldown", "ema", "lr_decay", "average", "discriminator_share")
        check_least(self, weight_decay=0)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {self.betas}, but must be at least 0 and below 1")
        kind = self.discriminator
        kind = kind if isinstance(kind, str) else kind.get("kind", DISCRIMINATORS[0])
        if kind not in DISCRIMINATORS:
            raise ValueError(f"discriminator {kind!r}: known are {', '.join(DISCRIMINATORS)}")
        check_least(self, rate_steps_before=0, speed=0, workers=0)
        if self.speed > 0.5:
            raise ValueError(f"speed is {self.speed:g}, but must be at most 0.5")
        if not self.corpora:
            raise ValueError("corpora is empty: give at least one corpus to train on")


@dataclass(frozen=True)
class CodecTrainingSettings(SharedSettings):
    """Train a codec. `warmup` and `cooldown` apply to each phase.

    Attributes:
        name: the run's folder is runs/<name>.
        architecture: "stft" (`StftCodecModel`), "dac" or "encodec" (transformers' `DacModel`,
            `EncodecModel`), "mimi": the decoder of a `MimiModel`, or "offline": the decoder of a
            codec with an offline quantizer, which `model` names as `codec`. "auto" is that of
            `start_from`.
        model: settings of the architecture's config; for "auto" those to change.
        quantizer: "residual", or "variable" for a variable bitrate: the levels of each frame are
            chosen by a network that trains with the codec. "none" trains a continuous codec, to
            which `recipes/quantize_offline.py` fits a quantizer afterwards.
        latent_noise: standard deviation of normal noise on the latents in training, for the
            quantizer "none" only.
        variable: settings of the variable bitrate, for the "variable" quantizer only.
        steps: all steps of the training.
        continuous_steps: first steps, without quantizer. It is then initialised from data.
        decoder_steps: next steps, with encoder and quantizer frozen.
        discriminator_warmup: steps before the first, in which a new discriminator trains alone.
        adversarial_start: step at which the discriminators begin to train.
        adversarial_warmup: steps after that in which the codec trains without their losses.
        start_from: codec to start from, a name in the zoo, folder or hub id; its quantizer is kept.
            A causal STFT codec can start from one that looks ahead, and a codec of variable bitrate
            from one without.
        start_discriminator: folder of a discriminator to start from, or the name of a codec in the
            zoo that has one.
        balancer: scale the gradients of the losses at the waveform so that each has the share of
            its weight, as EnCodec does. The quantizer's losses stay outside.
        joint_learning_rate: replaces `learning_rate` when encoder and quantizer train together.
        max_codebook_loss: the run stops above it, since the quantizer has diverged. The loss is a
            sum over levels.
        quantizer_init_seconds: audio that initialises the quantizer.
        compile: run the codec through torch.compile.
    """

    name: str = "train_codec"
    architecture: str = "stft"
    model: dict[str, Any] = field(default_factory=dict)
    quantizer: Literal["residual", "variable", "none"] = "residual"
    latent_noise: float = 0.0
    variable: VariableSettings = field(default_factory=VariableSettings)
    steps: int = 20000
    continuous_steps: int = 0
    decoder_steps: int = 0
    discriminator_warmup: int = 0
    adversarial_start: int = 0
    adversarial_warmup: int = 0
    start_from: str | None = None
    start_discriminator: str | None = None
    weights: CodecLossWeights = field(default_factory=CodecLossWeights)
    joint_learning_rate: float = 1e-4
    max_codebook_loss: float = 50.0
    quantizer_init_seconds: float = 900.0
    compile: bool = False
    balancer: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, steps=1, continuous_steps=0, decoder_steps=0)
        check_least(self, discriminator_warmup=0, adversarial_start=0, adversarial_warmup=0)
        check_positive(self, "joint_learning_rate", "max_codebook_loss", "quantizer_init_seconds")
        if self.quantizer not in ("residual", "variable", "none"):
            raise ValueError(f"quantizer {self.quantizer!r}: known are residual, variable, none")
        check_least(self, latent_noise=0)
        if self.architecture == AUTO and (self.start_from is None or self.quantizer == "none"):
            raise ValueError(
                "architecture auto: it is that of start_from, with its quantizer; set start_from, "
                "and quantizer to residual or variable"
            )
        if self.quantizer == "none" and self.continuous_steps:
            raise ValueError(
                f"continuous_steps = {self.continuous_steps} with quantizer none: all steps are "
                "without a quantizer; set it to 0"
            )
        if self.quantizer != "none" and self.latent_noise:
            raise ValueError(
                f"latent_noise = {self.latent_noise:g} with quantizer {self.quantizer}: it is for "
                "quantizer none; set it to 0"
            )
        if self.quantizer != "variable" and self.variable != VariableSettings():
            raise ValueError(
                f"variable settings with quantizer {self.quantizer}: they need quantizer variable; "
                "set it, or leave them out"
            )
        before = self.continuous_steps + self.decoder_steps
        if self.variable.importance_only and (before or self.start_from is None):
            raise ValueError(
                "variable.importance_only: it needs a codec to start from, and only the phase that "
                "trains everything; set start_from, continuous_steps 0 and decoder_steps 0"
            )
        if before > self.steps:
            raise ValueError(
                f"continuous_steps + decoder_steps = {before} exceed steps = {self.steps}: "
                "raise steps or shorten the phases"
            )


@dataclass(frozen=True)
class TuningSettings(SharedSettings):
    """Tune a codec so that it drifts less.

    Attributes:
        name: the run's folder is runs/<name>; None names it after the codec and the loss.
        codec: name in the zoo, folder or hub id; its stages must be open.
        loss: idempotence loss: "code", "proj" or "enc" of the paper, or "margin"; "none" for runs
            to compare with, in which `weight` and `sweep` are not used.
        weight: weight of that loss (lambda); None finds one by a sweep.
        sweep: weights to try.
        sweep_steps: steps per weight of the sweep.
        sweep_tolerance: a weight holds if its validation loss exceeds the untuned codec's by at
            most this share.
        passes: how often the output is encoded again in training. The paper uses 1.
        later_weight: weight of the mel and spectral losses of later passes; the first pass has
            weight 1. The paper uses 0.
        later_target: what the outputs of later passes are compared with: "original", or "first",
            the first output, which the codec can reach exactly.
        detach_target: stop the idempotence loss's gradient at its target, the first encoding. In
            the paper it flows on; for "code", straight through the quantizer to the projected
            latents.
        hold_first: stop every gradient of later passes at the first encoding, which would otherwise
            learn to choose codes that are easier to find again: at the target, as `detach_target`,
            and at the codes that the output was decoded from. Costs one more decoding.
        freeze_encoder: train the decoder only, so that the codes of all audio stay those of the
            untuned codec, and token datasets remain valid.
        drifted_passes: each step begins with a random number of passes without gradient, at most
            this many. The codec's own losses still compare with the original.
        shift: before each further encoding, each item moves by a random number of samples, at most
            this many in either direction; 0 for none. See `Reencoder`.
        steps: of the final tuning.
        start_discriminator: a saved discriminator; "auto" uses `discriminator/` next to the codec's
            weights if there is one; None starts with a new one.
        discriminator_warmup: steps in which a new discriminator trains alone, before the first;
            none if the adversarial share is 0.
        adversarial_share: share of the steps, at the end, that use the discriminator. The paper
            uses 1; less saves time.
        untuned_share: share of the untuned codec's weights in the saved ones, which are validated
            too; the rest is that of the tuned codec. Wortsman et al. (2022, "Robust fine-tuning of
            zero-shot models") average in the same way. The training does not depend on it.
        weights: of the codec's own losses.
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
    detach_target: bool = False
    hold_first: bool = False
    freeze_encoder: bool = False
    drifted_passes: int = 0
    shift: int = 0
    steps: int = 50000
    start_discriminator: str | None = "auto"
    discriminator_warmup: int = 1000
    adversarial_share: float = 1.0
    untuned_share: float = 0.0
    weights: LossWeights = field(default_factory=LossWeights)
    validation_passes: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, steps=1, sweep_steps=1, passes=1, drifted_passes=0, validation_passes=2)
        check_least(self, discriminator_warmup=0, later_weight=0, weight=0, shift=0)
        check_shares(self, "adversarial_share", "untuned_share")
        if self.loss not in (*LOSSES, "none"):
            raise ValueError(f"loss {self.loss!r}: known are {', '.join(LOSSES)} and none")
        if self.later_weight and self.passes < 2:
            raise ValueError(
                f"later_weight = {self.later_weight:g} with passes = {self.passes}: there is no "
                "later pass; set passes to at least 2, or later_weight to 0"
            )
        if self.later_target not in ("original", "first"):
            raise ValueError(
                f"later_target {self.later_target!r}: known are 'original' and 'first'"
            )


def tuning_folder(s: TuningSettings) -> Path:
    """Folder of a tuning's run."""
    return Path(s.runs) / (s.name or f"{Path(s.codec).name}-{s.loss}")


def check_sources(s: SharedSettings) -> None:
    """Raise FileNotFoundError if the codec or a corpus does not exist. Hubs are not looked up."""
    for corpus in (*s.corpora, s.validation or s.corpora[0]):
        check_corpus(corpus)
    if isinstance(s, TuningSettings):
        check_name(s.codec)
    if isinstance(s, CodecTrainingSettings) and s.start_from is not None:
        check_name(s.start_from)
