"""Compare codecs by generators trained on their tokens (Code Drift's Table II).

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

from accelerate.utils import set_seed

import vocode_mfcc
from tokgen.comparison.cells import TrainedCell, fill_cell
from tokgen.comparison.compare import check_margins, compare
from tokgen.comparison.lines import Line, score_lines
from tokgen.comparison.telephone import TelephoneSettings, play_telephone
from tokgen.comparison.telephone_results import write_telephone
from tokgen.corpus.listed import open_corpus
from tokgen.drift.compare import measure_drift
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
from tokgen.metrics.statistics import bootstrap_mean
from tokgen.metrics.tables import write_table
from tokgen.modelling.masked import MaskedTransformer
from tokgen.plotting import plot_curves
from tokgen.runs.accelerator import conditions_of, make_accelerator
from tokgen.runs.folder import clear_results
from tokgen.runs.interrupts import plain_errors, run_recipe
from tokgen.runs.settings import claim_run, parse_settings, save_settings
from tokgen.runs.store import slug
from tokgen.tokens.conditioning import check_kind
from tokgen.tokens.dataset import TokenDataset
from tokgen.training.loop import Training
from tokgen.zoo.lookup import load_codec


@dataclass(frozen=True)
class Settings(vocode_mfcc.Settings):
    """Settings of a comparison, in addition to those of `vocode_mfcc.Settings`.

    The conditioning may also be "none", for the tasks "continue" and "infill".

    Attributes:
        codec: names in the zoo, folders or hub ids; repeat the flag for each.
        task: generation task.
        seeds: number of trainings per codec, with seed, seed + 1 ...
        metrics: names of `tokgen.evaluation.metric.METRICS`.
        margins: metric -> largest loss that does not matter, for the verdict "no worse".
        drift_passes: encodings of the drift measurement; 0 skips it.
        phase: measure sensitivity to shifts too.
        telephone: repeated editing; 0 rounds skip it.
        speaker: backend of the metric "speaker".
    """

    name: str = "compare_codecs"
    codec: list[str] = field(default_factory=lambda: ["speech-16k", "speech-16k-code"])
    task: TaskSettings = field(default_factory=TaskSettings)
    seeds: int = 1
    metrics: list[str] = field(
        default_factory=lambda: ["mos", "pesq", "cer", "speaker", "f0", "voicing"]
    )
    margins: dict[str, float] = field(default_factory=dict)
    drift_passes: int = 25
    phase: bool = False
    telephone: TelephoneSettings = field(default_factory=TelephoneSettings)
    tracker: str = "none"
    speaker: str = "auto"
    n_saved: int = 24

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("seeds", "generation_batch", "n_test"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if not self.codec or len(set(self.codec)) < len(self.codec):
            raise ValueError(f"codecs {self.codec}: give at least one, and each once")
        if self.drift_passes == 1 or self.drift_passes < 0:
            raise ValueError(f"drift_passes = {self.drift_passes}: give 2 or more, or 0 for none")
        check_metrics(self.metrics)
        check_margins(self.margins)
        if self.conditioning != "none":
            check_kind(self.conditioning)
        elif self.task.name == "vocode":
            raise ValueError(
                "conditioning 'none' with task 'vocode': use mfcc, log_mel or another --task.name"
            )


# These may change when a run continues: their results are stored by content.
MAY_CHANGE = (
    *(*vocode_mfcc.MAY_CHANGE, "codec", "seeds", "metrics", "margins", "drift_passes", "phase"),
    *("telephone", "speaker", "task"),
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
    """Training tokens and held-out utterances of a codec."""

    name: str
    tokens: TokenDataset
    held_out: HeldOut


def main(argv: list[str] | None = None) -> int:
    s = parse_settings(Settings, Path(__file__).with_suffix(".yaml"), argv)
    run = Path(s.runs) / s.name
    with plain_errors():
        accelerator = make_accelerator(run, s.mixed_precision, s.tracker, s.gradient_accumulation)

    # 1. Tokens of every codec, and the utterances to generate, the same for all codecs.
    with accelerator.main_process_first(), plain_errors():
        claim_run(run, s, free=MAY_CHANGE)
        entries = prepare(s, str(accelerator.device))
    scorer, held_out = None, entries[0].held_out
    if accelerator.is_main_process:
        clear_results(run, RESULTS)
        save_settings(run, s, codecs=[e.held_out.codec.spec.as_dict() for e in entries])
        with plain_errors():
            backends = {"asr": s.asr, "mos": s.mos, "speaker_encoder": s.speaker}
            reference = longest_clip(s.corpus, entries[0].tokens) if "mos" in s.metrics else None
            rate = held_out.codec.spec.sample_rate
            scorer = Scorer(s.metrics, **backends, mos_reference=reference, sample_rate=rate)

    # 2. Train one model per codec and seed, and generate with it. Finished cells are reused.
    made: dict[str, list[TrainedCell]] = {entry.name: [] for entry in entries}
    models: dict[str, MaskedTransformer] = {}  # of the first seed
    for seed in range(s.seed, s.seed + s.seeds):
        for entry in entries:
            accelerator.print(f"\n{entry.name}, seed {seed}: {entry.held_out.codec}")
            cell = run / "cells" / f"{slug(entry.name)}-seed{seed}"
            model = train(s, entry, seed, cell)
            if model is None:
                accelerator.end_training()
                return 130
            if s.telephone.rounds and seed == s.seed:
                models[entry.name] = model
            found = fill_cell(
                model,
                entry.held_out,
                cell,
                accelerator,
                task=s.task,
                sampling=s.sampling,
                seed=seed,
                batch_size=s.generation_batch,
            )
            made[entry.name].append(found)
    accelerator.end_training()  # the rest runs in one process
    if scorer is None:
        return 0

    # 3. Drift of the codecs on the same utterances: repeated editing and repeated encoding.
    calls = []
    for entry in entries if s.telephone.rounds else []:
        clips_folder, model = run / "telephone" / "clips", models[entry.name]
        call = play_telephone(
            model, entry.held_out, s.telephone, s.sampling, scorer, out=clips_folder, seed=s.seed
        )
        calls.append(call)
    drift: dict[str, dict[str, float]] = {}
    if s.drift_passes:
        heard = open_corpus(s.test_corpus or s.corpus, split="test")
        heard = heard.select(ids=held_out.ids)
        codecs = [entry.held_out.codec for entry in entries]
        measured = measure_drift(codecs, heard, run / "drift", passes=s.drift_passes, phase=s.phase)
        for found in measured.runs:
            last = [float(clip.values["pesq"][-1]) for clip in found.clips]
            drift[found.name] = dict(zip(found.ids, last, strict=True))

    # 4. Score each clip of every line against the original.
    lines = [Line("original", "original", held_out, [held_out.originals])]
    for entry in entries:
        known = drift.get(entry.name, {})
        fields = [[{"drift_pesq": known.get(i, math.nan)} for i in held_out.ids]] if known else None
        clips, name = [entry.held_out.resynthesis()], f"{entry.name} resynthesis"
        lines.append(Line(name, "resynthesis", entry.held_out, clips, fields))
    for entry in entries:
        found, name = made[entry.name], f"{entry.name} generated"
        extra = {
            "training_speed": bootstrap_mean([m.steps_per_second for m in found]),
            "sampling_speed": bootstrap_mean([m.times_real_time for m in found]),
        }
        clips, fields = [m.clips for m in found], [m.accuracy for m in found]
        lines.append(Line(name, "generated", entry.held_out, clips, fields, extra))
    rows = score_lines(scorer, lines, run / "scores")

    # 5. Compare every codec with the first, paired over clips and seeds.
    about = {"margins": s.margins, "drift_passes": s.drift_passes}
    about["notes"] = notes(s, held_out, **conditions_of(accelerator))
    with plain_errors():
        table = compare(rows, scorer.backends, **about)
    write_table(table, run)
    columns = [line.column() for line in lines]
    if calls:
        write_telephone(calls, s.telephone, scorer, run / "telephone")
        for call, entry in zip(calls, entries, strict=True):
            name = f"{entry.name} after {s.telephone.rounds} edits"
            columns.append(Line(name, "generated", entry.held_out, [call.last]).column())
    write_samples(run / "samples", columns, held_out.ids, held_out.texts, s.n_saved)
    print(f"\n{table}")
    print(f"outputs: {run} (table.json, .csv, .md, .tex; samples)\nnext: tokgen report {run}")
    return 0


def train(s: Settings, entry: Entry, seed: int, cell: Path) -> MaskedTransformer | None:
    """Train the model of a codec and seed, or load a trained one. Returns None if interrupted."""
    accelerator = make_accelerator(cell, s.mixed_precision, s.tracker, s.gradient_accumulation)
    settings, codec = replace(s, seed=seed), entry.held_out.codec
    set_seed(seed)
    about = {"codec": codec.spec.as_dict(), "data": entry.tokens.provenance.as_dict()}
    about |= conditions_of(accelerator)
    with accelerator.main_process_first():
        claim_run(cell, settings, free=(*(set(MAY_CHANGE) - {"codec"}), "name"), **about)
    model = MaskedTransformer.for_tokens(codec, entry.tokens, s.model)
    training = Training(accelerator, model, entry.tokens, settings, cell)
    if accelerator.is_main_process:
        save_settings(cell, settings, **about)
        accelerator.init_trackers("logs")
    for batch in training.batches():
        training.descend(training.loss(batch))
    for tracker in accelerator.trackers:
        tracker.finish()
    if training.interrupted:
        return None
    training.save_model(cell / "model")
    if accelerator.is_main_process:
        plot_curves(training.history, cell / "curves.png")
    accelerator.free_memory()
    # Load the model as users do: Accelerate left the trained one in mixed precision.
    return MaskedTransformer.from_pretrained(cell / "model").to(accelerator.device).eval()


def prepare(s: Settings, device: str) -> list[Entry]:
    """Load the codecs and tokenize the corpus with each, or reuse the tokens."""
    entries: list[Entry] = []
    for name in s.codec:
        codec = load_codec(name, device=device)
        spec, test_corpus = codec.spec, s.test_corpus or s.corpus
        conditioning = None if s.conditioning == "none" else s.conditioning
        tokens, test_tokens = training_and_test_tokens(
            s.corpus, s.test_corpus, codec, Path(s.runs) / "tokens", conditioning
        )
        enough = max(s.min_test_seconds, s.task.shortest_seconds)
        held_out = choose_held_out(test_tokens, codec, test_corpus, n=s.n_test, min_seconds=enough)
        if s.task.levels > spec.n_codebooks:
            raise ValueError(f"levels = {s.task.levels}: {spec.name} has {spec.n_codebooks}")
        if "cer" in s.metrics and not any(held_out.texts):
            raise ValueError(f"{test_corpus} has no transcripts for cer: drop it from --metrics")
        entries.append(Entry(spec.name, tokens, held_out))
        if held_out.ids != entries[0].held_out.ids:
            raise ValueError(
                f"{entries[0].name} and {spec.name} do not have the same test utterances: "
                "one of them could not encode some; leave those out of the corpus"
            )
    names = [entry.name for entry in entries]
    if len({slug(name) for name in names}) < len(names):
        raise ValueError(f"codecs are named {names}: rename a folder, so that they differ")
    return entries


def notes(s: Settings, held_out: HeldOut, processes: int, precision: str) -> list[str]:
    """Return the notes below the table."""
    batch = s.batch_size * s.gradient_accumulation * processes
    lines = [
        f"{len(held_out)} held-out utterances of {s.test_corpus or s.corpus}, "
        f"{held_out.seconds:.0f} s; task {s.task.name}, conditioning {s.conditioning}; "
        f"{s.model.preset} model, {s.steps} steps of {batch} x {s.crop_seconds:g} s, "
        f"trained in {precision}, sampled in float32",
        "means with 95 % bootstrap intervals; differences are paired over clips and seeds",
    ]
    one = "one training per codec: the intervals cover clips, but not training seeds"
    several = (
        f"{s.seeds} trainings per codec; the intervals cover clips and seeds. If trainings differ "
        "more than clips, they contain the true value in 84 % of cases with 3 seeds, 93 % with 10"
    )
    lines.append(one if s.seeds == 1 else several)
    if s.task.name != "vocode":
        lines.append(
            "scores cover whole utterances, including the kept parts; utterances shorter than "
            f"{s.task.shortest_seconds:g} s are left out"
        )
    if s.drift_passes:
        lines.append(f"PESQ @ {s.drift_passes}: PESQ after that many encodings of the first 5 s")
    lines.append("token accuracy has no verdict: it depends on how predictable the codes are")
    lines.append("speeds were measured on this machine together with its other work")
    return lines


if __name__ == "__main__":
    run_recipe(main)
