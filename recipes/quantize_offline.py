"""Make a codec of a continuous one: fit a quantizer to its latents.

    accelerate launch -q recipes/quantize_offline.py --quantizer kmeans --bitrate 4    # a minute
    accelerate launch -q recipes/quantize_offline.py --quantizer qinco2 --bitrate 4 \
        --finetune_decoder 2000

1. The corpora are encoded to latents, which stay in runs/latents for other runs.
2. The quantizer is fitted to frames of the train splits.
3. With `--finetune_decoder N`, the decoder trains N steps on what the quantizer makes. Encoder and
   quantizer, and so the codes, stay as they are.

The codec is in runs/<name>/codec, or runs/<name>/finetuned/codec, and every command takes it by
this name. Run the same command again to continue an interrupted run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from tokgen.codec_training.settings import CodecTrainingSettings
from tokgen.corpus.settings import check_corpus
from tokgen.quantizers.offline.settings import QincoTraining
from tokgen.runs.checks import check_least, check_positive
from tokgen.runs.interrupts import plain_errors, run_recipe
from tokgen.runs.locks import lock_folder
from tokgen.runs.settings import (
    begin_recipe,
    claim_run,
    command_of,
    parse_settings,
    save_settings,
)
from tokgen.zoo.names import check_name


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Make a codec of a continuous one.

    Attributes:
        name: the run's folder is runs/<name>.
        codec: continuous codec: a name in the zoo, a folder or a hub id.
        corpora: corpora with train splits to fit to.
        validation: corpus whose validation split is scored; None means the first of `corpora`.
        quantizer: kmeans, lsq, pq, opq, fsq, rfsq or qinco2.
        quantizer_settings: more settings of the quantizer, such as {preset: M} of qinco2.
        bitrate: kbps; it must be a whole number of levels.
        codebook_size: entries per level.
        beam: paths of the search at encoding time, for quantizers that have one; 1 is greedy.
        frames: most frames to fit to, drawn at random.
        training: how qinco2 trains.
        finetune_decoder: steps in which the decoder trains; 0 for none.
        finetune: how it trains; corpora, validation, steps and names are those of this recipe.
        seed: of the draw of frames and of the quantizer.
        runs: parent folder of the runs.
    """

    name: str = "quantize_offline"
    codec: str = "speech-16k-continuous"
    corpora: list[str] = field(default_factory=lambda: ["recipes/data/allison"])
    validation: str | None = None
    quantizer: str = "qinco2"
    quantizer_settings: dict = field(default_factory=dict)
    bitrate: float = 4.0
    codebook_size: int = 1024
    beam: int = 16
    frames: int = 300000
    training: QincoTraining = field(default_factory=QincoTraining)
    finetune_decoder: int = 0
    finetune: CodecTrainingSettings = field(default_factory=CodecTrainingSettings)
    seed: int = 0
    runs: str = "runs"

    def __post_init__(self) -> None:
        check_least(self, codebook_size=2, beam=1, frames=1, finetune_decoder=0, seed=0)
        check_positive(self, "bitrate")
        if not self.corpora:
            raise ValueError("corpora is empty: give at least one corpus to fit to")


def check_sources(s: Settings) -> None:
    """Raise FileNotFoundError if the codec or a corpus does not exist."""
    check_name(s.codec)
    for corpus in (*s.corpora, s.validation or s.corpora[0]):
        check_corpus(corpus)


MAY_CHANGE = ("finetune_decoder", "finetune", "validation", "runs")  # the codes stay the same

if __name__ == "__main__":
    begin_recipe(Settings, __file__, check_sources)

import torch
from torch import Tensor

from tokgen.codec.continuous import ContinuousCodec
from tokgen.codec_training.train import train_codec
from tokgen.corpus.listed import open_corpus
from tokgen.nn.cards import ModelCardFacts
from tokgen.quantizers.offline.base import OfflineQuantizer, share_left
from tokgen.quantizers.offline.qinco2 import Qinco2
from tokgen.quantizers.offline.qinco2_training import train_qinco2
from tokgen.quantizers.offline.registry import make_quantizer
from tokgen.runs.accelerator import make_accelerator
from tokgen.runs.folder import write_json
from tokgen.tokens.cache import cached_latents
from tokgen.tokens.latents import LatentDataset
from tokgen.zoo.continuous import load_continuous
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.offline import OfflineCodec


def main(argv: list[str] | None = None) -> int:
    s = parse_settings(Settings, Path(__file__).with_suffix(".yaml"), argv)
    run = Path(s.runs) / s.name
    with lock_folder(run), plain_errors():
        return quantize(s, run, command_of(__file__, argv))


def quantize(s: Settings, run: Path, command: str) -> int:
    """Encode, fit and tune in the folder `run`. Returns the exit code."""
    accelerator = make_accelerator(run, "no", "none")
    continuous = load_continuous(s.codec)
    n_codebooks = levels_for(s, continuous)
    about = {"codec": continuous.spec.as_dict()}
    with accelerator.main_process_first():
        claim_run(run, s, free=MAY_CHANGE, **about)

        # 1. Latents. Those of a corpus are reused if it and the codec have not changed.
        cache = Path(s.runs) / "latents"
        latents = [cached_latents(open_corpus(c), continuous, cache) for c in s.corpora]
        held = latents[0]
        if s.validation is not None:
            held = cached_latents(open_corpus(s.validation), continuous, cache)
    if accelerator.is_main_process:
        save_settings(run, s, **about)
    frames = drawn_frames(latents, s)
    validation = held.frames("validation")
    accelerator.print(f"{len(frames)} frames to fit to, {len(validation)} held out")

    # 2. The quantizer.
    if not (run / "codec" / "config.json").is_file():
        shape = {"n_codebooks": n_codebooks, "codebook_size": s.codebook_size}
        settings = {"dim": continuous.spec.latent_dim, **shape, **s.quantizer_settings}
        quantizer = make_quantizer(s.quantizer, **settings)
        if not fit(quantizer, frames, validation, s, run, accelerator):
            accelerator.end_training()
            return 130
        if accelerator.is_main_process:
            beam = s.beam if quantizer.searches else 1
            codec = OfflineCodec.join(continuous, quantizer, s.name, beam=beam)
            hours = len(frames) / continuous.spec.frame_rate / 3600
            corpus = ", ".join(s.corpora)
            base = continuous.spec.name
            codec.save_pretrained(
                run / "codec", ModelCardFacts(corpus, hours=hours, base=base, command=command)
            )
    accelerator.wait_for_everyone()

    # 3. What it leaves of held-out frames, and the decoder.
    if accelerator.is_main_process:
        codec = load_codec(run / "codec")
        found = measure(codec, validation)
        write_json(run / "metrics.json", found)
        accelerator.print(
            f"{codec}: leaves {found['share_left']:.4f} of the variance of held-out frames"
        )
    done = run / "codec"
    accelerator.end_training()
    if s.finetune_decoder:
        tuning = finetuning(s, run)
        if train_codec(tuning, command=command, audio=Path(s.runs) / "audio") is None:
            return 130
        done = run / tuning.name / "codec"
    accelerator.print(f"codec: {done}\nnext: tokgen score --codec {done} --corpus {s.corpora[0]}")
    return 0


def levels_for(s: Settings, continuous: ContinuousCodec) -> int:
    """Return the number of levels that have the bitrate."""
    per_level = continuous.spec.frame_rate * math.log2(s.codebook_size) / 1000
    levels = round(s.bitrate / per_level)
    if levels < 1 or abs(levels * per_level - s.bitrate) > 0.005 * s.bitrate:
        least = max(1, math.floor(s.bitrate / per_level))
        near = " or ".join(f"{k * per_level:g}" for k in (least, least + 1))
        raise ValueError(
            f"bitrate = {s.bitrate:g}: a level of {s.codebook_size} entries is {per_level:g} kbps "
            f"at {continuous.spec.frame_rate:g} frames per second; use {near}, or another "
            "codebook_size"
        )
    return levels


def drawn_frames(latents: list[LatentDataset], s: Settings) -> Tensor:
    """Return at most `s.frames` random frames of the train splits, [n, D]."""
    totals = [each.n_frames("train") for each in latents]
    share = min(1.0, s.frames / max(1, sum(totals)))
    parts = [
        each.sample_frames("train", max(1, round(share * n)), seed=s.seed)
        for each, n in zip(latents, totals, strict=True)
        if n
    ]
    if not parts:
        raise ValueError("no corpus has a train split with frames to fit to")
    return torch.cat(parts)


def fit(
    quantizer: OfflineQuantizer,
    frames: Tensor,
    validation: Tensor,
    s: Settings,
    run: Path,
    accelerator: object,
) -> bool:
    """Fit a quantizer; return False if it was interrupted."""
    if not isinstance(quantizer, Qinco2):
        quantizer.fit(frames, seed=s.seed)
        return True
    training = replace(s.training, seed=s.seed)
    how = {"validation": validation, "folder": run, "accelerator": accelerator}
    return train_qinco2(quantizer, frames, training, **how) is not None


def measure(codec: object, validation: Tensor) -> dict[str, float]:
    """Return the share of variance left of held-out frames, with the codec's beam and greedily."""
    assert isinstance(codec, OfflineCodec)
    quantizer, found = codec.model.quantizer, {}
    for name, beam in (("share_left", codec.model.beam), ("share_left_greedy", 1)):
        decoded = quantizer.decode(quantizer.encode(validation, beam=beam))
        found[name] = share_left(validation, decoded)
    return {**found, "n_frames": len(validation)}


def finetuning(s: Settings, run: Path) -> CodecTrainingSettings:
    """Return the settings of the decoder's training."""
    return replace(
        s.finetune,
        name="finetuned",
        architecture="offline",
        model={"codec": str(run / "codec")},
        steps=s.finetune_decoder,
        corpora=s.corpora,
        validation=s.validation,
        runs=str(run),
        seed=s.seed,
    )


if __name__ == "__main__":
    run_recipe(main)
