"""Write the report of run folders as one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import tokgen
from tokgen.audio.files import display_name
from tokgen.disk import disk_errors
from tokgen.report import figures, views
from tokgen.report.clips import (
    MAX_GAIN_DB,
    ClipSounds,
    frequency_ticks,
    make_sounds,
    top_frequency,
)
from tokgen.report.encoding import AudioFormat
from tokgen.report.listening import Listening
from tokgen.report.reader import Run, read_run
from tokgen.results import Grid, Result
from tokgen.runs.checks import check_writable
from tokgen.runs.progress import progress_bar

__all__ = [
    "GENERATOR",
    "HERE",
    "MAX_FAILURES",
    "SCRIPTS",
    "Section",
    "SoundTable",
    "Written",
    "is_report",
    "render",
    "titles",
    "write_report",
]

MAX_FAILURES = 200  # in a list of failed values
GENERATOR = "tokgen report"
HERE = Path(__file__).parent / "static"
SCRIPTS = ("player.js", "listening.js", "blind.js", "blind_tests.js")


@dataclass(frozen=True)
class SoundTable:
    """A listening table with its sounds.

    Attributes:
        number: index on the page.
        listening: columns and utterances.
        clips: sounds of the utterances.
        top_hz: upper edge of the spectrograms.
    """

    number: int
    listening: Listening
    clips: list[ClipSounds]
    top_hz: float


@dataclass(frozen=True)
class Section:
    """A run with its listening tables."""

    run: Run
    title: str
    sound_tables: list[SoundTable]


@dataclass(frozen=True)
class Written(Result):
    """Facts about a written page.

    Attributes:
        n_clips: number of utterances.
        n_sounds: number of embedded sounds without low anchors.
        problems: one message for each file that could not be read.
    """

    path: Path
    n_bytes: int
    n_runs: int
    n_clips: int
    n_sounds: int
    audio: AudioFormat
    problems: list[str] = field(default_factory=list)

    def parts(self) -> list[Grid | str]:
        sounds = f"{self.n_sounds} sounds of {self.n_clips} utterances as {self.audio}"
        missing = f", {len(self.problems)} missing" if self.problems else ""
        runs = "1 run" if self.n_runs == 1 else f"{self.n_runs} runs"
        return [f"{self.path}: {self.n_bytes / 1e6:.1f} MB, {runs}, {sounds}{missing}"]

    def records(self) -> list[dict[str, Any]]:
        return [{k: v for k, v in self.to_dict().items() if k != "problems"}]

    def to_dict(self) -> dict[str, Any]:
        return vars(self) | {"path": str(self.path), "audio": str(self.audio)}


def write_report(
    runs: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    clips: int = 12,
    audio: str = "wav",
    opus_kbps: int = 64,
    overwrite: bool = False,
    progress: bool = True,
) -> Written:
    """Write the report of runs.

    A page of an earlier call is replaced when the new one is complete.

    Args:
        runs: run folders, one section each; or one folder.
        out: HTML file to write; None is report.html in the run's folder, or in the current folder
            for several runs.
        clips: maximum number of utterances per listening table; 0 embeds no audio.
        audio: "wav" (16 bits, lossless) or "opus" (small).
        opus_kbps: bitrate of Opus.
        overwrite: replace a file that is not a page of this function, too.
        progress: show a bar over utterances.
    Raises:
        ValueError: no folder, a folder that is not a run or has nothing to show, or a damaged file.
        FileExistsError: `out` is another file, and `overwrite` is False.
        OSError: `out` cannot be written, which is checked first, or a run was deleted meanwhile.
    """
    folders = [Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs]
    if not folders:
        raise ValueError("no run: pass at least one folder")
    if clips < 0:
        raise ValueError(f"clips = {clips}: must be 0 or more")
    if out is None:
        out = (folders[0] if len(folders) == 1 else Path()) / "report.html"
    out = Path(out)
    check_writable(out, overwrite=overwrite or is_report(out), suffixes=(".html", ".htm"))
    form = AudioFormat(audio, opus_kbps)
    read = [read_run(folder, clips) for folder in folders]
    listenings = [listening for run in read for listening in run.listenings]
    total, top_hz = sum(len(found.clips) for found in listenings), top_frequency(listenings)
    with progress_bar("report", total=total, unit="clip", show=progress and total > 0) as bar:
        sections: list[Section] = []
        numbers = itertools.count()
        for run, title in zip(read, titles([run.name for run in read]), strict=True):
            tables = []
            for listening in run.listenings:
                made = []
                for clip in listening.clips:
                    made.append(make_sounds(clip, listening.columns, form, top_hz))
                    bar.update()
                tables.append(SoundTable(next(numbers), listening, made, top_hz))
            sections.append(Section(run, title, tables))
    gone = next((folder for folder in folders if not folder.is_dir()), None)
    if gone is not None:
        raise FileNotFoundError(f"{display_name(gone)} was deleted while its report was made")
    content = render(sections, form).encode("utf-8", "replace")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    try:
        with disk_errors(out):
            partial.write_bytes(content)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    shown = [clip for section in sections for table in section.sound_tables for clip in table.clips]
    n_sounds = sum(sound is not None for clip in shown for sound in clip.sounds)
    problems = [problem for clip in shown for problem in clip.problems]
    return Written(out, len(content), len(read), len(shown), n_sounds, form, problems)


def is_report(path: Path) -> bool:
    """Return whether a file is a page of `write_report`."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return f'<meta name="generator" content="{GENERATOR}'.encode() in file.read(1 << 12)


def titles(names: Sequence[str]) -> list[str]:
    """Number the names that occur more than once."""
    return [
        f"{name} ({names[:i].count(name) + 1})" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]


def render(sections: Sequence[Section], audio: AudioFormat) -> str:
    """Render the page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = "".join((HERE / name).read_text("utf-8") for name in SCRIPTS)
    script = f'"use strict";\n(() => {{\n{script}}})();\n'
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template("page.html.j2").render(
        sections=[_view(section, i) for i, section in enumerate(sections)],
        training=_training(sections),
        data=_data(sections, audio),
        audio=audio,
        max_gain=MAX_GAIN_DB,
        generator=f"{GENERATOR} {tokgen.__version__}",
        version=tokgen.__version__,
        style=Markup((HERE / "page.css").read_text("utf-8")),
        script=Markup(script),
        policy=(
            f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
            "img-src data:; media-src data: blob:; base-uri 'none'; form-action 'none'"
        ),
        digits=views.digits,
        ticks=frequency_ticks,
        max_failures=MAX_FAILURES,
    )
    return page.lstrip()


def _view(section: Section, i: int) -> dict[str, Any]:
    """Collect the template variables of a run."""
    run, salt = section.run, f"run-{i}"
    view: dict[str, Any] = {
        "id": salt,
        "title": section.title,
        "run": run,
        "sound_tables": section.sound_tables,
    }
    if run.table:
        shown = [m for m in run.table.metrics if not m.detail]
        details = [m for m in run.table.metrics if m.detail]
        view["tables"] = [
            (
                metrics,
                views.table_rows(run.table, metrics),
                views.table_differences(run.table, fold),
            )
            for metrics, fold in ((shown, False), (details, True))
        ]
        view["failures"] = views.table_failures(run.table)
    if run.drift:
        view["drift_pictures"] = figures.drift_pictures(run.drift, f"{salt}-drift")
        view["drift_legend"] = [s.name for s in run.drift.summaries]
        view["drift_numbers"] = views.drift_numbers(run.drift)
        view["depth_numbers"] = views.drift_numbers(run.drift, depth=True)
        view["drift_failures"] = views.drift_failures(run.drift)
        view["drift_differences"] = views.drift_differences(run.drift)
    if run.phase:
        view["phase_pictures"] = figures.phase_pictures(run.phase, f"{salt}-phase")
        view["phase_legend"] = [s.name for s in run.phase.summaries]
        view["phase_numbers"] = views.phase_numbers(run.phase)
    if run.telephone:
        view["telephone_pictures"] = figures.telephone_pictures(run.telephone, f"{salt}-telephone")
        view["telephone_legend"] = figures.telephone_codecs(run.telephone)
        view["telephone_numbers"] = views.telephone_numbers(run.telephone)
    view["hashes"] = views.codec_hashes(run.documents)
    view["documents"] = [
        (name, list(views.flatten(content))) for name, content in run.documents.items()
    ]
    return view


def _training(sections: Sequence[Section]) -> dict[str, Any] | None:
    """Draw one figure for all trainings of the page."""
    names, histories = [], []
    for section in sections:
        for cell, history in section.run.histories.items():
            both = f"{section.title} / {cell}" if len(sections) > 1 else cell
            names.append(both if cell else section.title)
            histories.append(history)
    pictures = figures.training_pictures(names, histories, "training") if names else []
    return {"pictures": pictures, "legend": names} if names else None


def _data(sections: Sequence[Section], audio: AudioFormat) -> dict[str, Any]:
    """Collect the data of the scripts: ids of the sounds, and the content of the JSON download."""
    tables = [(section, table) for section in sections for table in section.sound_tables]
    return {
        "listenings": [
            {
                "run": section.title,
                "columns": [
                    {"name": c.name, "reference": c.is_original} for c in table.listening.columns
                ],
                "clips": [_clip_data(table, row) for row in range(len(table.clips))],
            }
            for section, table in tables
        ],
        "settings": {
            "tokgen": tokgen.__version__,
            "runs": {section.title: section.run.documents for section in sections},
            "audio": {
                "format": str(audio),
                "loudness": "ITU-R BS.1770 with gates, each utterance's columns at its original's",
                "sounds": [s for section, table in tables for s in _sound_facts(section, table)],
            },
        },
    }


def _clip_data(table: SoundTable, row: int) -> dict[str, Any]:
    clip = table.clips[row]
    depths = [s.depth.as_dict() if s is not None and s.depth else None for s in clip.sounds]
    return {
        "id": clip.clip.id,
        "text": clip.clip.text,
        "seconds": clip.seconds,
        "sounds": [
            None if sound is None else f"audio-{table.number}-{row}-{column}"
            for column, sound in enumerate(clip.sounds)
        ],
        "anchor": None if clip.anchor is None else f"audio-{table.number}-{row}-anchor",
    } | ({"depths": depths} if any(depths) else {})


def _sound_facts(section: Section, table: SoundTable) -> Iterator[dict[str, Any]]:
    names = [column.name for column in table.listening.columns]
    for clip in table.clips:
        for name, sound in zip([*names, "low anchor"], [*clip.sounds, clip.anchor], strict=True):
            if sound is not None:
                measured = round(sound.loudness, 2) if math.isfinite(sound.loudness) else None
                yield {
                    "run": section.title,
                    "utterance": clip.clip.id,
                    "column": name,
                    "sample_rate": sound.sample_rate,
                    "loudness_lufs": measured,
                    "gain_db": round(sound.gain_db, 2),
                }
