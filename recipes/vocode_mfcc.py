"""Train a masked transformer to generate speech from MFCCs, and score it.

    accelerate launch -q recipes/vocode_mfcc.py                                 # minutes, on a CPU
    accelerate launch -q recipes/vocode_mfcc.py --config recipes/vocode_mfcc.paper.yaml
    accelerate launch -q recipes/vocode_mfcc.py --config recipes/vocode_mfcc.delay.yaml
    accelerate launch -q recipes/vocode_mfcc.py --name mine --tokens tokens

This is the downstream experiment of Code Drift (O'Reilly et al., section V): a SoundStorm-like
masked transformer predicts a codec's tokens from a 30-bin MFCC at the codec's frame rate. With
`--model.kind delay` the transformer is autoregressive, with MusicGen's delay pattern. All outputs
are in runs/<name>/. Run the same command again to continue an interrupted run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tokgen.corpus.settings import check_corpus
from tokgen.evaluation.settings import MetricSettings
from tokgen.generation.settings import SamplingSettings, TaskSettings
from tokgen.runs.checks import check_least
from tokgen.runs.interrupts import plain_errors, run_recipe
from tokgen.runs.locks import lock_folder
from tokgen.runs.settings import (
    begin_recipe,
    claim_run,
    command_of,
    parse_settings,
    save_settings,
)
from tokgen.training import settings as training_settings
from tokgen.training.settings import ModelTrainingSettings
from tokgen.zoo.names import check_name


@dataclass(frozen=True, kw_only=True)
class Settings(ModelTrainingSettings, MetricSettings):
    """Train a masked transformer to generate speech from MFCCs, and score it.

    Attributes:
        name: the run's folder is runs/<name>.
        tokens: token dataset to train on, a folder or hub id; None tokenizes `corpus`. If it has no
            test split, 5 % of its rows become one.
        corpus: a folder, Parquet file, saved dataset or hub id with train and test splits; None is
            the included one. With `tokens`, the audio to compare with: None uses decoded codes.
        codec: a name in the zoo, a folder or a hub id; None is the codec that `tokens` name, or
            speech-16k.
        conditioning: features to generate from, "mfcc" (the paper) or "log_mel".
        sampling: how codes are generated.
        n_test: number of held-out utterances to generate, from the start of the test split.
        test_corpus: corpus of the test split; None uses `corpus`.
        min_test_seconds: shorter test utterances are left out.
        generation_batch: utterances generated at once.
        stable: decode so that encoding the audio gives the generated codes again.
        n_saved: number of utterances to save as audio.
        runs: parent folder of the runs.
    """

    name: str = "vocode_mfcc"
    tokens: str | None = None
    corpus: str | None = None
    codec: str | None = None
    conditioning: Literal["mfcc", "log_mel"] = "mfcc"
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    n_test: int = 100
    test_corpus: str | None = None
    min_test_seconds: float = 0.0
    generation_batch: int = 16
    stable: bool = False
    n_saved: int = 8
    runs: str = "runs"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens is None:
            object.__setattr__(self, "corpus", self.corpus or "recipes/data/allison")
            object.__setattr__(self, "codec", self.codec or "speech-16k")
        elif self.test_corpus:
            raise ValueError("test_corpus with tokens, which hold the test split: leave it out")
        MetricSettings.__post_init__(self)
        check_least(self, n_test=1, min_test_seconds=0, generation_batch=1, n_saved=0)


def check_sources(s: Settings) -> None:
    """Raise FileNotFoundError if the codec or a corpus does not exist."""
    if s.codec is not None:
        check_name(s.codec)
    for corpus in (s.corpus, s.test_corpus):
        if corpus:
            check_corpus(corpus)


N_LOGGED = 3  # utterances that the tracker gets

# These may change when a run continues: they do not affect the trained weights.
MAY_CHANGE = (
    *(*training_settings.MAY_CHANGE, "n_test", "test_corpus", "min_test_seconds", "metrics"),
    *("asr", "cer_cap", "mos", "speaker", "n_saved", "sampling", "generation_batch", "runs"),
    "stable",
)

if __name__ == "__main__":
    begin_recipe(Settings, __file__, check_sources)

from accelerate.utils import gather_object, set_seed

from tokgen.codec.identity import unclaimed
from tokgen.codec.stable.decoding import check_searchable
from tokgen.evaluation.rows import score_audio
from tokgen.evaluation.samples import Column, write_samples
from tokgen.generation.held_out import (
    check_corpora,
    choose_held_out,
    longest_clip,
    training_and_test_tokens,
)
from tokgen.generation.training_tokens import open_training_tokens
from tokgen.modelling.loading import load_transformer
from tokgen.plotting import plot_curves, plot_spectrograms
from tokgen.runs.accelerator import conditions_of, log_audio, make_accelerator, start_trackers
from tokgen.runs.folder import write_json
from tokgen.training.kinds import make_training, make_transformer
from tokgen.zoo.lookup import load_codec


def main(argv: list[str] | None = None) -> int:
    s = parse_settings(Settings, Path(__file__).with_suffix(".yaml"), argv)
    run = Path(s.runs) / s.name
    with lock_folder(run):
        return train_and_score(s, run, command_of(__file__, argv))


def train_and_score(s: Settings, run: Path, command: str) -> int:
    """Train and score in the folder `run`. Returns the exit code."""
    with plain_errors():
        accelerator = make_accelerator(run, s.mixed_precision, s.tracker, s.gradient_accumulation)
    say = accelerator.print
    set_seed(s.seed)
    started = time.monotonic()

    # 1. Tokens. They are reused if the corpus and the codec have not changed.
    with accelerator.main_process_first(), plain_errors():
        device = str(accelerator.device)
        if s.tokens is not None:
            tokens, codec = open_training_tokens(s.tokens, s.codec, s.conditioning, device=device)
            test_tokens = tokens
        else:
            corpus, test_corpus = s.corpus or "", s.test_corpus
            check_corpora(corpus, test_corpus, n=s.n_test, min_seconds=s.min_test_seconds)
            codec = load_codec(s.codec or "", device=device)
            tokens, test_tokens = training_and_test_tokens(
                corpus, test_corpus, codec, Path(s.runs) / "tokens", s.conditioning
            )
        if s.stable:
            check_searchable(codec)
        held_out = choose_held_out(
            test_tokens,
            codec,
            s.test_corpus or s.corpus,
            n=s.n_test,
            min_seconds=s.min_test_seconds,
        )
        about = {"codec": codec.spec.as_dict(), "data": tokens.provenance.as_dict()}
        about |= conditions_of(accelerator)
        named = unclaimed(codec.spec, "codec", "data.codec")
        claim_run(run, s, free=(*MAY_CHANGE, *named), **about)
    train = tokens.splits["train"]
    hours = sum(train["n_samples"]) / codec.spec.sample_rate / 3600
    say(f"{codec}; {len(train)} training utterances, {hours:.2f} h")

    # 2. The model and its training, which continues from a checkpoint if there is one.
    model = make_transformer(codec, tokens, s)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    say(
        f"{size:.1f}M parameters ({s.model.preset}, {s.model.kind}), "
        f"{accelerator.num_processes} process(es) on {accelerator.device.type}, precision "
        f"{accelerator.mixed_precision}"
    )
    with plain_errors():
        training = make_training(accelerator, model, tokens, s, run)
    if accelerator.is_main_process:
        save_settings(run, s, **about)
        start_trackers(accelerator, s)

    # 3. Train. A masked model hides part of one level and predicts it from the levels below and the
    # MFCC; an autoregressive one predicts the codes of each step from those before.
    for batch in training.batches():
        loss = training.loss(batch)
        training.descend(loss)
    if training.interrupted:
        accelerator.end_training()
        return 130
    trained = time.monotonic()
    card = replace(training.card, command=command)
    training.save_model(run / "model", card)
    if accelerator.is_main_process:
        plot_curves(training.history, run / "curves.png")

    # 4. Generate the held-out utterances from their MFCCs, and without MFCCs as a lower bound. Load
    # the model as users do: Accelerate left the trained one in mixed precision.
    model = load_transformer(run / "model").to(accelerator.device).eval()
    options: dict[str, Any] = {
        "seed": s.seed, "batch_size": s.generation_batch, "progress": accelerator.is_main_process
    }  # fmt: skip
    with accelerator.split_between_processes(list(range(len(held_out)))) as mine:
        part = held_out.part(mine)
        generated = part.generate(model, TaskSettings(), s.sampling, stable=s.stable, **options)
        floor = part.generate(model, TaskSettings(), s.sampling, unconditional=True, **options)
    generated, floor = gather_object(generated), gather_object(floor)
    made = time.monotonic()

    # 5. Score against the original audio, and save some utterances.
    if accelerator.is_main_process:
        named, rate = s.codec or codec.spec.name, codec.spec.sample_rate
        audio = {
            "original": held_out.originals,
            "resynthesis": held_out.resynthesis(),
            "generated": [g.waveform for g in generated],
            "unconditional": [g.waveform for g in floor],
        }
        if s.corpus is None:  # no audio: compare with the best that a generator can reach
            del audio["original"]
        columns = [
            Column(
                row,
                "generated" if row == "unconditional" else row,
                named,
                rate,
                clips,
            )
            for row, clips in audio.items()
        ]
        write_samples(run / "samples", columns, held_out.ids, held_out.texts, s.n_saved)
        shown = {k: v[0] for k, v in audio.items()}
        plot_spectrograms(shown, rate, run / "spectrograms.png")
        scores = score_audio(
            audio,
            texts=held_out.texts,
            ids=held_out.ids,
            sample_rate=rate,
            metrics=s.metrics,
            asr=s.asr,
            cer_cap=s.cer_cap,
            mos=s.mos,
            speaker=s.speaker,
            utmos=s.utmos,
            fad=s.fad,
            mos_reference=longest_clip(s.corpus, tokens, codec),
            reference=next(iter(audio)),
        )
        timing = {
            "train": trained - started,
            "generate": made - trained,
            "score": time.monotonic() - made,
        }
        content = scores.to_dict()
        write_json(run / "clips.json", content.pop("clips"))
        write_json(
            run / "metrics.json",
            {
                **content,
                "steps": training.step,
                "seconds": timing,
                "codec": codec.spec.name,
            },
        )
        on = f"{len(held_out)} test clips of {test_tokens.provenance.corpus}"
        rows = scores.means.rows_as_dict()
        model.write_card(run / "model", replace(card, scores=rows, scored_on=on))
        for row, clips in audio.items():
            for utterance, clip in list(zip(held_out.ids, clips, strict=True))[:N_LOGGED]:
                log_audio(accelerator, f"{row}/{utterance}", clip, rate, training.step)
        say(f"\n{scores}")
        say(f"outputs: {run} (samples, curves.png, spectrograms.png, metrics.json)")
    accelerator.end_training()
    return 0


if __name__ == "__main__":
    run_recipe(main)
