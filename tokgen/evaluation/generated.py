"""The data of a generator's run, the scores of what it made of its test utterances, and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from tokgen.evaluation.generator_settings import GeneratorSettings
from tokgen.evaluation.rows import Scores, score_audio
from tokgen.evaluation.samples import Column, write_samples
from tokgen.generation.held_out import longest_clip
from tokgen.generation.training_tokens import GeneratorData, open_generator_data
from tokgen.plotting import plot_spectrograms
from tokgen.runs.folder import write_json

__all__ = ["audio_rows", "open_data", "save_scores", "score_generated"]


def open_data(s: GeneratorSettings, device: Any, *, with_text: bool = False) -> GeneratorData:
    """Open the data that the settings of a recipe name. Tokens are kept in the folder of its runs.

    Args:
        s: settings.
        device: device to load the codec on.
        with_text: as in `open_generator_data`, which also says what is raised.
    """
    return open_generator_data(
        s.tokens,
        s.corpus,
        s.codec,
        Path(s.runs) / "tokens",
        s.conditioning,
        n_test=s.n_test,
        test_corpus=s.test_corpus,
        min_seconds=s.min_test_seconds,
        with_text=with_text,
        device=str(device),
    )


def audio_rows(data: GeneratorData, **generated: Sequence[Tensor]) -> dict[str, Sequence[Tensor]]:
    """Return the rows of a table: original, resynthesis, and what was generated.

    There is no original if the audio is not at hand. The resynthesis, the best that a generator can
    reach, is then the row to compare with.

    Args:
        data: the test utterances.
        generated: waveforms [1, N] of these, by row.
    """
    held_out = data.held_out
    original = {} if data.corpus is None else {"original": held_out.originals}
    return {**original, "resynthesis": held_out.resynthesis(), **generated}


def score_generated(
    run: Path, audio: Mapping[str, Sequence[Tensor]], data: GeneratorData, s: GeneratorSettings
) -> Scores:
    """Write samples/ and spectrograms.png to a run's folder, and score rows against the first.

    Args:
        run: folder of the run.
        audio: from `audio_rows`.
        data: the test utterances.
        s: settings of the metrics; `n_saved` utterances are written.
    """
    held_out, rate = data.held_out, data.codec.spec.sample_rate
    named = s.codec or data.codec.spec.name
    columns = [
        Column(row, row if row in ("original", "resynthesis") else "generated", named, rate, clips)
        for row, clips in audio.items()
    ]
    write_samples(run / "samples", columns, held_out.ids, held_out.texts, s.n_saved)
    shown = {row: clips[0] for row, clips in audio.items()}
    plot_spectrograms(shown, rate, run / "spectrograms.png")
    return score_audio(
        {row: list(clips) for row, clips in audio.items()},
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
        mos_reference=longest_clip(data.corpus, data.tokens, data.codec),
        reference=next(iter(audio)),
    )


def save_scores(run: Path, scores: Scores, **about: Any) -> None:
    """Write metrics.json, with `about`, and clips.json to a run's folder."""
    content = scores.to_dict()
    write_json(run / "clips.json", content.pop("clips"))
    write_json(run / "metrics.json", {**content, **about})
