"""Compare codecs by the generators that are trained on their tokens (Code Drift's Table II).

    accelerate launch recipes/compare_codecs.py --codec speech-16k --codec speech-16k-code
    accelerate launch recipes/compare_codecs.py --seeds 3 --name three_seeds

For each codec the recipe tokenizes the corpus, trains the same model with the same seeds and data
order, generates the same held-out utterances from the same conditioning and noise, and scores them.
The other codecs are compared with the first one, paired over clips and seeds. Run the same command
again to continue an interrupted run. `tokgen report runs/<name>` makes a page from the results.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import set_seed

from tokgen.codec.base import Codec
from tokgen.comparison.cells import TrainedCell, fill_cell
from tokgen.comparison.compare import check_margins, compare
from tokgen.comparison.lines import Line, score_lines
from tokgen.comparison.telephone import TelephoneSettings, play_telephone
from tokgen.comparison.telephone_results import write_telephone
from tokgen.corpus.listed import open_corpus
from tokgen.drift.compare import compare_drift
from tokgen.drift.passes import DriftClips
from tokgen.evaluation.metric import check_metrics
from tokgen.evaluation.samples import write_samples
from tokgen.evaluation.scorer import Scorer
from tokgen.generation.held_out import (
    HeldOut,
    choose_held_out,
    longest_clip,
    training_and_test_tokens,
)
from tokgen.generation.prompts import TaskSettings
from tokgen.generation.sampling import SamplingSettings
from tokgen.metrics.statistics import Estimate, bootstrap_mean
from tokgen.metrics.tables import to_text, write_table
from tokgen.modelling.masked import MaskedTransformer, ModelSettings
from tokgen.plotting import plot_curves
from tokgen.runs.accelerator import conditions_of, make_accelerator
from tokgen.runs.folder import clear_results
from tokgen.runs.interrupts import plain_errors, run_recipe
from tokgen.runs.settings import claim_run, parse_settings, save_settings
from tokgen.runs.store import slug
from tokgen.tokens.conditioning import check_kind
from tokgen.tokens.dataset import TokenDataset
from tokgen.training.loop import Training
from tokgen.training.settings import TrainingSettings
from tokgen.zoo.lookup import load_codec


@dataclass(frozen=True)
class Settings(TrainingSettings):
    """Settings of a comparison, beside those of the training loop in `TrainingSettings`.

    Attributes:
        name: the run's folder is runs/<name>.
        corpus: a folder, Parquet file, saved dataset or hub id with train and test splits.
        codec: names in the zoo, folders or hub ids; repeat the flag for each.
        conditioning: "mfcc" (the paper), "log_mel" or "none".
        task: generation task; "continue" and "infill" need no conditioning.
        seeds: number of trainings per codec, with seed, seed + 1 ...
        metrics: names of `tokgen.evaluation.metric.METRICS`.
        margins: metric -> largest loss that does not matter, for the verdict "no worse".
        drift_passes: encodings of the drift measurement; 0 skips it.
        phase: measure sensitivity to shifts too.
        telephone: repeated editing; 0 rounds skip it.
        model: size of the transformer.
        sampling: how codes are generated.
        mixed_precision: "auto", "no", "bf16" or "fp16".
        tracker: "none", "tensorboard", "wandb" ...
        n_test: number of held-out utterances to generate, from the start of the test split.
        test_corpus: corpus of the test split; None uses `corpus`.
        min_test_seconds: shorter test utterances are left out.
        generation_batch: utterances generated at once.
        asr, mos, speaker: backends of the metrics.
        n_saved: number of utterances to save as audio.
        runs: parent folder of the runs.
    """

    name: str = "compare_codecs"
    corpus: str = "recipes/data/allison"
    codec: list[str] = field(default_factory=lambda: ["speech-16k", "speech-16k-code"])
    conditioning: str = "mfcc"
    task: TaskSettings = field(default_factory=TaskSettings)
    seeds: int = 1
    metrics: list[str] = field(
        default_factory=lambda: ["mos", "pesq", "cer", "speaker", "f0", "voicing"]
    )
    margins: dict[str, float] = field(default_factory=dict)
    drift_passes: int = 25
    phase: bool = False
    telephone: TelephoneSettings = field(default_factory=TelephoneSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    mixed_precision: str = "auto"
    tracker: str = "none"
    n_test: int = 100
    test_corpus: str | None = None
    min_test_seconds: float = 0.0
    generation_batch: int = 16
    asr: str = "auto"
    mos: str = "auto"
    speaker: str = "auto"
    n_saved: int = 24
    runs: str = "runs"


# These may change when a run continues: their results are stored by content.
MAY_CHANGE = (
    *("codec", "seeds", "metrics", "margins", "drift_passes", "phase", "telephone", "sampling"),
    *("n_test", "test_corpus", "min_test_seconds", "asr", "mos", "speaker", "n_saved", "task"),
    *("generation_batch", "checkpoint_every", "tracker", "workers", "runs"),
)


# Results of a finished run; deleted when the run continues.
RESULTS = (
    *("table.json", "table.csv", "table.md", "table.tex", "samples", "drift/audio"),
    *("drift/drift.json", "drift/drift.csv", "drift/drift.png", "drift/phase.json"),
    *("drift/phase.png", "telephone/telephone.json", "telephone/telephone.csv"),
    "telephone/telephone.png",
)


@dataclass(frozen=True)
class Entry:
    """A codec with its training tokens and its held-out utterances."""

    name: str
    codec: Codec
    tokens: TokenDataset
    held_out: HeldOut


def main(argv: list[str] | None = None) -> int:
    s = parse_settings(Settings, Path(__file__).with_suffix(".yaml"), argv)
    with plain_errors():
        check(s)
        accelerator = make_accelerator(
            Path(s.runs) / s.name,
            mixed_precision=s.mixed_precision,
            tracker=s.tracker,
            gradient_accumulation=s.gradient_accumulation,
        )
    run = Path(s.runs) / s.name

    # 1. Tokens of every codec, and the utterances to generate, the same for all codecs.
    with accelerator.main_process_first(), plain_errors():
        claim_run(run, s, free=MAY_CHANGE)
        entries = [prepare(s, name, str(accelerator.device)) for name in s.codec]
        check_entries(entries)
    scorer = None
    if accelerator.is_main_process:
        clear_results(run, RESULTS)
        save_settings(run, s, codecs=[e.codec.spec.as_dict() for e in entries])
        with plain_errors():
            scorer = make_scorer(s, entries[0])

    # 2. Train one model per codec and seed, and generate with it. Finished cells are reused.
    made: dict[str, list[TrainedCell]] = {entry.name: [] for entry in entries}
    for seed in range(s.seed, s.seed + s.seeds):
        for entry in entries:
            accelerator.print(f"\n{entry.name}, seed {seed}: {entry.codec}")
            cell = cell_of(run, entry, seed)
            model = train(s, entry, seed, cell)
            if model is None:
                accelerator.end_training()
                return 130
            more = {"task": s.task, "sampling": s.sampling, "batch_size": s.generation_batch}
            found = fill_cell(model, entry.held_out, cell, accelerator, seed=seed, **more)
            made[entry.name].append(found)
    accelerator.end_training()  # the rest runs in one process
    if scorer is None:
        return 0

    # 3. Drift of the codecs on the same utterances: repeated editing and repeated encoding.
    calls = []
    for entry in entries if s.telephone.rounds else []:
        model = load_cell(cell_of(run, entry, s.seed), accelerator)
        more = {"out": run / "telephone" / "clips", "seed": s.seed}
        calls.append(play_telephone(model, entry.held_out, s.telephone, s.sampling, scorer, **more))
    drift: dict[str, dict[str, float]] = {}
    if s.drift_passes:
        heard = open_corpus(s.test_corpus or s.corpus, split="test")
        measured = compare_drift(
            [entry.codec for entry in entries],
            DriftClips(heard.select(ids=entries[0].held_out.ids)),
            run / "drift",
            passes=s.drift_passes,
            phase=s.phase,
        )
        for found in measured.runs:
            last = [float(clip.values["pesq"][-1]) for clip in found.clips]
            drift[found.name] = dict(zip(found.ids, last, strict=True))

    # 4. Score each clip of every line against the original.
    held_out = entries[0].held_out
    lines = [Line("original", "original", held_out, [held_out.originals])]
    for entry in entries:
        known = drift.get(entry.name, {})
        more = [{"drift_pesq": known.get(i, math.nan)} for i in held_out.ids] if known else None
        clips = [entry.held_out.resynthesis()]
        line = Line(f"{entry.name} resynthesis", "resynthesis", entry.held_out, clips)
        lines.append(replace(line, clip_fields=more and [more], extra=bitrate_of(entry.codec)))
    for entry in entries:
        found = made[entry.name]
        extra = bitrate_of(entry.codec) | {
            "training_speed": bootstrap_mean([m.steps_per_second for m in found]),
            "sampling_speed": bootstrap_mean([m.times_real_time for m in found]),
        }
        clips, accuracy = [m.clips for m in found], [m.accuracy for m in found]
        name = f"{entry.name} generated"
        lines.append(Line(name, "generated", entry.held_out, clips, accuracy, extra))
    rows = score_lines(scorer, lines, run / "scores")

    # 5. Compare every codec with the first, paired over clips and seeds.
    with plain_errors():
        table = compare(
            rows,
            scorer.backends,
            margins=s.margins,
            drift_passes=s.drift_passes,
            notes=notes(s, entries, accelerator),
        )
    write_table(table, run)
    columns = [line.column() for line in lines]
    if calls:
        write_telephone(calls, s.telephone, scorer, run / "telephone")
        for call, entry in zip(calls, entries, strict=True):
            name = f"{entry.name} after {s.telephone.rounds} edits"
            columns.append(Line(name, "generated", entry.held_out, [call.last]).column())
    write_samples(run / "samples", columns, held_out.ids, held_out.texts, s.n_saved)
    print("\n" + to_text(table))
    print(f"outputs: {run} (table.json, .csv, .md, .tex; samples)\nnext: tokgen report {run}")
    return 0


def cell_of(run: Path, entry: Entry, seed: int) -> Path:
    return run / "cells" / f"{slug(entry.name)}-seed{seed}"


def load_cell(cell: Path, accelerator: Accelerator) -> MaskedTransformer:
    return MaskedTransformer.from_pretrained(cell / "model").to(accelerator.device).eval()


def train(s: Settings, entry: Entry, seed: int, cell: Path) -> MaskedTransformer | None:
    """Train the model of a codec and seed, or load a trained one. Returns None if interrupted."""
    accelerator = make_accelerator(
        cell,
        mixed_precision=s.mixed_precision,
        tracker=s.tracker,
        gradient_accumulation=s.gradient_accumulation,
    )
    settings = replace(s, seed=seed)
    set_seed(seed)
    about = {"codec": entry.codec.spec.as_dict(), "data": entry.tokens.provenance.as_dict()}
    about |= conditions_of(accelerator)
    with accelerator.main_process_first():
        free = (*(set(MAY_CHANGE) - {"codec"}), "name")
        claim_run(cell, settings, free=free, **about)
    model = MaskedTransformer.for_tokens(entry.codec, entry.tokens, s.model)
    training = Training(accelerator, model, entry.tokens, settings, cell)
    if accelerator.is_main_process:
        save_settings(cell, settings, **about)
        accelerator.init_trackers("logs")
    for batch in training.batches():
        loss = training.loss(batch)
        training.descend(loss)
    for tracker in accelerator.trackers:
        tracker.finish()
    if training.interrupted:
        return None
    training.save_model(cell / "model")
    if accelerator.is_main_process:
        plot_curves(training.history, cell / "curves.png")
    accelerator.free_memory()
    # Load the model as users do: Accelerate left the trained one in mixed precision.
    return load_cell(cell, accelerator)


def prepare(s: Settings, name: str, device: str) -> Entry:
    """Load a codec and tokenize the corpus with it, or reuse the tokens."""
    codec = load_codec(name, device=device)
    conditioning = None if s.conditioning == "none" else s.conditioning
    tokens, test_tokens = training_and_test_tokens(
        s.corpus, s.test_corpus, codec, Path(s.runs) / "tokens", conditioning
    )
    test_corpus = s.test_corpus or s.corpus
    enough = max(s.min_test_seconds, s.task.shortest_seconds)
    held_out = choose_held_out(test_tokens, codec, test_corpus, n=s.n_test, min_seconds=enough)
    if s.task.levels > codec.spec.n_codebooks:
        raise ValueError(
            f"levels = {s.task.levels}: {codec.spec.name} has {codec.spec.n_codebooks}"
        )
    if "cer" in s.metrics and not any(held_out.texts):
        raise ValueError(f"{test_corpus} has no transcripts for cer: drop it from --metrics")
    return Entry(codec.spec.name, codec, tokens, held_out)


def check(s: Settings) -> None:
    """Check the settings that would otherwise fail after training."""
    if s.seeds < 1:
        raise ValueError(f"seeds = {s.seeds}: must be at least 1")
    if not s.codec or len(set(s.codec)) < len(s.codec):
        raise ValueError(f"codecs {s.codec}: give at least one, and each once")
    if s.drift_passes == 1 or s.drift_passes < 0:
        raise ValueError(f"drift_passes = {s.drift_passes}: give 2 or more, or 0 for none")
    if s.generation_batch < 1 or s.n_test < 1:
        raise ValueError(
            f"generation_batch = {s.generation_batch}, n_test = {s.n_test}: must be at least 1"
        )
    s.model.arguments()
    if s.conditioning != "none":
        check_kind(s.conditioning)
    check_metrics(s.metrics)
    check_margins(s.margins)
    if s.conditioning == "none" and s.task.name == "vocode":
        raise ValueError(
            "conditioning 'none' with task 'vocode', which needs one: use mfcc or log_mel, or "
            "--task.name continue or infill"
        )


def check_entries(entries: list[Entry]) -> None:
    """Check that the codecs have different names and the same test utterances."""
    names = [entry.name for entry in entries]
    if len({slug(name) for name in names}) < len(names):
        raise ValueError(f"codecs are named {names}: rename a folder, so that they differ")
    for entry in entries[1:]:
        if entry.held_out.ids != entries[0].held_out.ids:
            raise ValueError(
                f"{names[0]} and {entry.name} do not have the same test utterances: "
                "one of them could not encode some; leave those out of the corpus"
            )


def make_scorer(s: Settings, entry: Entry) -> Scorer:
    return Scorer(
        s.metrics,
        asr=s.asr,
        mos=s.mos,
        speaker_encoder=s.speaker,
        mos_reference=longest_clip(s.corpus, entry.tokens) if "mos" in s.metrics else None,
        sample_rate=entry.codec.spec.sample_rate,
    )


def bitrate_of(codec: Codec) -> dict[str, Estimate]:
    return {"bitrate": bootstrap_mean([codec.spec.bitrate / 1000])}


def notes(s: Settings, entries: list[Entry], accelerator: Accelerator) -> list[str]:
    """Notes below the table."""
    held_out = entries[0].held_out
    batch = s.batch_size * s.gradient_accumulation * accelerator.num_processes
    lines = [
        f"{len(held_out)} held-out utterances of {s.test_corpus or s.corpus}, "
        f"{held_out.seconds:.0f} s; task {s.task.name}, conditioning {s.conditioning}; "
        f"{s.model.preset} model, {s.steps} steps of {batch} x {s.crop_seconds:g} s, "
        f"trained in {accelerator.mixed_precision}, sampled in float32",
        "means with 95 % bootstrap intervals; differences are paired over clips and seeds",
    ]
    if s.seeds == 1:
        lines.append(
            "one training a codec: intervals tell of clips, not of what another seed would give"
        )
    else:
        lines.append(
            f"{s.seeds} trainings a codec, clips and seeds resampled; where trainings differ more "
            "than clips, such intervals hold the truth in 84 % of cases with 3 seeds, 93 % with 10"
        )
    if s.task.name != "vocode":
        lines.append(
            "scores are of whole utterances, what was kept included; utterances under "
            f"{s.task.shortest_seconds:g} s are left out"
        )
    if s.drift_passes:
        lines.append(f"PESQ @ {s.drift_passes}: after so many encodings of the first 5 s")
    lines.append("token accuracy depends on how predictable a codec's codes are: no verdict")
    lines.append("speeds are of this machine beside all else that it did")
    return lines


if __name__ == "__main__":
    run_recipe(main)
