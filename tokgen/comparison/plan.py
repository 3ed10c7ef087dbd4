"""Compare codecs by generators trained on their tokens (Code Drift's Table II).

    table = compare_codecs(["speech-16k", "speech-16k-code"], "my_audio", "runs/two", steps=1000)
    print(table)

For each codec, `compare_codecs` tokenizes the corpus, trains the same model with the same seeds and
data order, generates the same held-out utterances from the same conditioning and noise, and scores
them. The other codecs are compared with the first one, paired over clips and seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from tokgen.codec.base import Codec
from tokgen.comparison.cells import TrainedCell, fill_cell
from tokgen.comparison.compare import compare
from tokgen.comparison.entries import lost_notes, prepare_entries
from tokgen.comparison.lines import Entry, Line, lines_of, score_lines
from tokgen.comparison.notes import notes_of
from tokgen.comparison.settings import (
    MAY_CHANGE,
    MAY_CHANGE_IN_TRAINING,
    ComparisonSettings,
    needs_floor,
)
from tokgen.comparison.telephone import Call, play_telephone
from tokgen.comparison.telephone_results import write_telephone
from tokgen.drift.compare import measure_drift
from tokgen.drift.depths import name_of
from tokgen.evaluation.samples import write_samples
from tokgen.evaluation.scorer import Scorer
from tokgen.generation.held_out import held_out_clips, longest_clip
from tokgen.metrics.table_files import write_table
from tokgen.metrics.tables import Table
from tokgen.modelling.masked import MaskedTransformer
from tokgen.modelling.settings import ModelSettings
from tokgen.runs.accelerator import conditions_of, make_accelerator
from tokgen.runs.folder import check_run_folder, clear_results
from tokgen.runs.locks import lock_folder
from tokgen.runs.settings import claim_run, save_settings
from tokgen.runs.store import slug
from tokgen.training.settings import settings_of_call
from tokgen.training.train import train_model

__all__ = ["RESULTS", "compare_codecs", "run_comparison"]

# Results of a finished run; deleted when the run continues.
RESULTS = (
    *("table.json", "table.csv", "table.md", "table.tex", "samples", "drift/audio"),
    *("drift/drift.json", "drift/drift.csv", "drift/drift.png", "drift/phase.json"),
    *("drift/phase.png", "telephone/telephone.json", "telephone/telephone.csv"),
    "telephone/telephone.png",
)


def compare_codecs(
    codecs: Sequence[str | Path | Codec],
    corpus: str | Path,
    out: str | Path,
    *,
    preset: str | ModelSettings = "small",
    tokens: Sequence[str | Path] = (),
    cache: str | Path | None = None,
    **settings: Any,
) -> Table | None:
    """Compare codecs by generators trained on their tokens.

    The same call continues a comparison that was interrupted. It runs on a GPU if there is one. In
    a script that `accelerate launch` starts, all processes call it and share the work.

    Args:
        codecs: codecs, or their names as in `load_codec`, each once. The others are compared with
            the first. With `tokens`, one for each dataset, or none for the codecs that they name.
        corpus: a corpus as in `open_corpus`. If it has no test split, 5 % of its clips become one.
        out: folder of the results: table.json, .csv, .md and .tex, samples/, drift/, telephone/ and
            the trained models in cells/. `write_report` makes a page of it.
        preset: size of the models, "small" or "paper", or their `ModelSettings`.
        tokens: existing token datasets of the corpus, folders or hub ids, one for each codec;
            empty tokenizes the corpus.
        cache: folder to keep the token datasets in that are made; None is `out`/tokens.
        settings: fields of `ComparisonSettings` besides `name`, `runs`, `codec`, `corpus` and
            `model`, such as `steps`, `seeds` and `metrics`.
    Returns:
        the table of means with intervals, and of differences with verdicts. None in processes of
        `accelerate launch` other than the first, which end their work before scoring.
    Raises:
        TypeError: unknown setting, or `tokens` is not a list.
        ValueError: a setting is out of range, the corpus lacks a split or transcripts, or `out`
            holds something else, such as a run with other settings.
        FileNotFoundError: no such codec or corpus.
        BlockingIOError: another process works in `out`.
        OSError: the disk is full.
        FloatingPointError: a loss is no longer finite.
        Interrupted: Ctrl-C or SIGTERM in a training; a checkpoint was written.
    """
    if isinstance(tokens, str | Path):
        raise TypeError(
            f"tokens = {str(tokens)!r}: give a list of token datasets, one for each codec; the "
            "folder to keep new ones in is `cache`"
        )
    if not codecs and not tokens:
        raise ValueError("no codec: give at least one, or tokens, which name theirs")
    out = Path(out)
    names = [name_of(codec) if isinstance(codec, Codec) else str(codec) for codec in codecs]
    chosen = settings_of_call(
        ComparisonSettings,
        "compare_codecs",
        preset,
        settings,
        name=out.name,
        runs=str(out.parent),
        codec=names,
        corpus=str(corpus),
        tokens=[str(source) for source in tokens],
    )
    check_run_folder(out)
    return run_comparison(chosen, codecs, cache=out / "tokens" if cache is None else Path(cache))


def run_comparison(
    s: ComparisonSettings, codecs: Sequence[str | Path | Codec], *, cache: Path
) -> Table | None:
    """Compare codecs as `compare_codecs` does.

    Args:
        s: settings; the folder of the results is `runs`/`name`.
        codecs: the codecs of `s.codec`, as names or objects.
        cache: folder to keep the token datasets in that are made.
    Raises:
        BlockingIOError: another process works in the folder.
        OSError: the disk is full.
    """
    run = Path(s.runs) / s.name
    with lock_folder(run):
        return _compare(s, codecs, run, cache)


def _compare(
    s: ComparisonSettings, codecs: Sequence[str | Path | Codec], run: Path, cache: Path
) -> Table | None:
    accelerator = make_accelerator(run, s.mixed_precision, s.tracker, s.gradient_accumulation)

    # 1. Tokens of every codec, and the utterances to generate, the same for all codecs.
    with accelerator.main_process_first():
        claim_run(run, s, free=MAY_CHANGE)
        entries, lost = prepare_entries(s, codecs, cache, str(accelerator.device))
    scorer, held_out = None, entries[0].held_out
    if accelerator.is_main_process:
        clear_results(run, RESULTS)
        save_settings(run, s, codecs=[e.held_out.codec.spec.as_dict() for e in entries])
        scorer = _make_scorer(s, entries[0])

    # 2. Train one model per codec and seed, and generate with it. Finished cells are reused.
    kinds = s.generators or [s.model.kind]
    made: dict[tuple[str, str], list[TrainedCell]] = {}
    models: dict[str, MaskedTransformer] = {}  # of the first seed
    for seed in range(s.seed, s.seed + s.seeds):
        for entry, kind in product(entries, kinds):
            accelerator.print(f"\n{entry.name}, {kind}, seed {seed}: {entry.held_out.codec}")
            of_kind = "" if kind == "masked" else f"-{kind}"
            cell = run / "cells" / f"{slug(entry.name)}{of_kind}-seed{seed}"
            first = entry is entries[0] and kind == kinds[0]
            model = train_model(
                make_accelerator(cell, s.mixed_precision, s.tracker, s.gradient_accumulation),
                entry.tokens,
                entry.held_out.codec,
                cell,
                replace(s, seed=seed, model=replace(s.model, kind=kind)),
                may_change=MAY_CHANGE_IN_TRAINING,
            )
            if s.telephone.rounds and seed == s.seed and isinstance(model, MaskedTransformer):
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
                floor=needs_floor(s) and seed == s.seed and first,
            )
            made.setdefault((entry.name, kind), []).append(found)
    conditions = conditions_of(accelerator)
    accelerator.end_training()  # the rest runs in one process
    if scorer is None:
        return None

    # 3. Drift of the codecs on the same utterances: repeated editing and repeated encoding.
    calls = _play(s, entries, models, scorer, run / "telephone" / "clips")
    drift = _measure_drift(s, entries, run / "drift") if s.drift_passes else {}

    # 4. Score each clip of every line against the original.
    lines = lines_of(entries, made, drift)
    rows = score_lines(scorer, lines, run / "scores")

    # 5. Compare every codec with the first, paired over clips and seeds.
    notes = notes_of(s, [entry.held_out for entry in entries], **conditions)
    table = compare(
        rows,
        scorer.backends,
        margins=s.margins,
        drift_passes=s.drift_passes,
        notes=[*notes, *lost_notes(lost)],
    )
    table.failures.extend(lost)
    write_table(table, run)
    columns = [line.column() for line in lines]
    if calls:
        write_telephone(calls, s.telephone, scorer, run / "telephone")
        for call, entry in zip(calls, entries, strict=True):
            name = f"{entry.name} after {s.telephone.rounds} edits"
            columns.append(Line(name, "generated", entry.held_out, [call.last]).column())
    write_samples(run / "samples", columns, held_out.ids, held_out.texts, s.n_saved)
    return table


def _make_scorer(s: ComparisonSettings, first: Entry) -> Scorer:
    codec = first.held_out.codec
    return Scorer(
        s.metrics,
        asr=s.asr,
        cer_cap=s.cer_cap,
        mos=s.mos,
        speaker_encoder=s.speaker,
        utmos=s.utmos,
        mos_reference=longest_clip(s.corpus, first.tokens, codec) if "mos" in s.metrics else None,
        sample_rate=codec.spec.sample_rate,
    )


def _play(
    s: ComparisonSettings,
    entries: Sequence[Entry],
    models: dict[str, MaskedTransformer],
    scorer: Scorer,
    out: Path,
) -> list[Call]:
    """Edit utterances repeatedly with each codec; no calls if there are no rounds."""
    if not s.telephone.rounds:
        return []
    return [
        play_telephone(
            models[entry.name],
            entry.held_out,
            s.telephone,
            s.sampling,
            scorer,
            out=out,
            seed=s.seed,
        )
        for entry in entries
    ]


def _measure_drift(
    s: ComparisonSettings, entries: Sequence[Entry], out: Path
) -> dict[str, dict[str, float]]:
    """Return the PESQ after the last pass by codec and utterance."""
    heard = held_out_clips(s.test_corpus or s.corpus, entries[0].held_out.ids)
    codecs = [entry.held_out.codec for entry in entries]
    measured = measure_drift(codecs, heard, out, passes=s.drift_passes, phase=s.phase)
    return {
        found.name: dict(
            zip(found.ids, [float(c.values["pesq"][-1]) for c in found.clips], strict=True)
        )
        for found in measured.runs
    }
