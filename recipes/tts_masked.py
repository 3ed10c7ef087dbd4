"""Train a masked transformer to speak text, and score it.

    accelerate launch -q recipes/tts_masked.py                       # the included voice
    accelerate launch -q recipes/tts_masked.py --text.unit phonemes  # English words as phonemes

First a text model learns to align the symbols of transcripts with frames, and to predict durations
and MFCCs. Then a masked transformer learns to generate a codec's tokens from the symbol and the
predicted MFCC of each frame. The test clips are generated from their text alone. All outputs are in
runs/<name>/. Run the same command again to continue an interrupted run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from tokgen.corpus.settings import check_corpus
from tokgen.evaluation.settings import MetricSettings
from tokgen.generation.settings import SamplingSettings
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
from tokgen.training.settings import ModelTrainingSettings, TextTrainingSettings
from tokgen.zoo.names import check_name


@dataclass(frozen=True, kw_only=True)
class Settings(ModelTrainingSettings, MetricSettings):
    """Train a masked transformer to speak text, and score it.

    Attributes:
        name: the run's folder is runs/<name>.
        corpus: a folder, Parquet file, saved dataset or hub id with transcripts, and train and test
            splits.
        codec: a name in the zoo, a folder or a hub id.
        conditioning: features that the text model predicts, "mfcc" or "log_mel".
        text: training of the text model. Its seed is that of the run.
        sampling: how codes are generated.
        speed: of the generated speech; above 1 is faster than the training speech.
        n_test: number of held-out utterances to generate, from the start of the test split.
        test_corpus: corpus of the test split; None uses `corpus`.
        min_test_seconds: shorter test utterances are left out.
        generation_batch: utterances generated at once.
        n_saved: number of utterances to save as audio.
        runs: parent folder of the runs.
    """

    name: str = "tts_masked"
    corpus: str = "recipes/data/allison"
    codec: str = "speech-16k"
    conditioning: Literal["mfcc", "log_mel"] = "mfcc"
    text: TextTrainingSettings = field(default_factory=TextTrainingSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    speed: float = 1.0
    metrics: list[str] = field(default_factory=lambda: ["cer", "mos", "speaker"])
    n_test: int = 100
    test_corpus: str | None = None
    min_test_seconds: float = 0.0
    generation_batch: int = 16
    n_saved: int = 8
    runs: str = "runs"

    def __post_init__(self) -> None:
        super().__post_init__()
        MetricSettings.__post_init__(self)
        check_least(self, n_test=1, min_test_seconds=0, generation_batch=1, n_saved=0)
        if not 0.25 <= self.speed <= 4:
            raise ValueError(f"speed = {self.speed}: must be between 0.25 and 4")


def check_sources(s: Settings) -> None:
    """Raise FileNotFoundError if the codec or a corpus does not exist."""
    check_name(s.codec)
    check_corpus(s.corpus)
    check_corpus(s.test_corpus or s.corpus)


# These may change when a run continues: they do not affect the trained weights.
MAY_CHANGE = (
    *(*training_settings.MAY_CHANGE, "n_test", "test_corpus", "min_test_seconds", "metrics"),
    *("asr", "cer_cap", "mos", "speaker", "n_saved", "sampling", "generation_batch", "runs"),
    "speed",
)

if __name__ == "__main__":
    begin_recipe(Settings, __file__, check_sources)

from accelerate.utils import gather_object, set_seed

from tokgen.codec.identity import unclaimed
from tokgen.evaluation.rows import score_audio
from tokgen.evaluation.samples import Column, write_samples
from tokgen.generation.held_out import (
    check_corpora,
    choose_held_out,
    longest_clip,
    training_and_test_tokens,
)
from tokgen.generation.speech import TEXT, Speaker
from tokgen.modelling.text.model import TextModel
from tokgen.plotting import plot_curves, plot_spectrograms
from tokgen.runs.accelerator import conditions_of, make_accelerator, start_trackers
from tokgen.runs.folder import write_json
from tokgen.training.masked import MaskedTraining
from tokgen.training.text import TextTraining
from tokgen.training.text_frames import speaking_transformer, with_text_frames
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

    # 1. Tokens with MFCCs and transcripts. They are reused if corpus and codec have not changed.
    with accelerator.main_process_first(), plain_errors():
        check_corpora(
            s.corpus, s.test_corpus, n=s.n_test, min_seconds=s.min_test_seconds, with_text=True
        )
        codec = load_codec(s.codec, device=str(accelerator.device))
        tokens, test_tokens = training_and_test_tokens(
            s.corpus, s.test_corpus, codec, Path(s.runs) / "tokens", s.conditioning
        )
        held_out = choose_held_out(
            test_tokens,
            codec,
            s.test_corpus or s.corpus,
            n=s.n_test,
            min_seconds=s.min_test_seconds,
        )
        held_out = held_out.part([i for i, text in enumerate(held_out.texts) if text])
        about = {"codec": codec.spec.as_dict(), "data": tokens.provenance.as_dict()}
        about |= conditions_of(accelerator)
        named = unclaimed(codec.spec, "codec", "data.codec")
        claim_run(run, s, free=(*MAY_CHANGE, *named), **about)
        text_model = TextModel.for_tokens(codec, tokens, s.text.size, s.text.unit)
    if accelerator.is_main_process:
        save_settings(run, s, **about)
        start_trackers(accelerator, s)

    # 2. The text model: align symbols with frames, predict durations and MFCCs.
    with plain_errors():
        text_settings = replace(s.text, seed=s.seed)
        learning = TextTraining(accelerator, text_model, tokens, text_settings, run / TEXT)
    say(f"text model: {len(learning.speech)} clips, {len(text_model.symbols)} {s.text.unit}")
    for batch in learning.batches():
        learning.descend(learning.loss(batch))
    if learning.interrupted:
        accelerator.end_training()
        return 130
    card = replace(learning.card, command=command)
    learning.save_model(run / "model" / TEXT, card)
    text_model = TextModel.from_pretrained(run / "model" / TEXT).to(accelerator.device).eval()

    # 3. The masked transformer: hide part of one level, predict it from the levels below and the
    # frames of the text. The durations are those of the speech.
    with plain_errors():
        spoken = with_text_frames(tokens, text_model, progress=accelerator.is_main_process)
        set_seed(s.seed)
        model = speaking_transformer(codec, text_model, s.model)
        training = MaskedTraining(accelerator, model, spoken, s, run)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    say(f"{size:.1f}M parameters ({s.model.preset}), precision {accelerator.mixed_precision}")
    for batch in training.batches():
        training.descend(training.loss(batch))
    if training.interrupted:
        accelerator.end_training()
        return 130
    card = replace(training.card, command=command)
    training.save_model(run / "model", card)
    if accelerator.is_main_process:
        plot_curves(training.history, run / "curves.png")

    # 4. Generate the test utterances from their texts alone, by the saved models.
    speaker = Speaker.from_pretrained(run / "model", device=accelerator.device)
    began = time.monotonic()
    with accelerator.split_between_processes(list(range(len(held_out)))) as mine:
        part = held_out.part(mine)
        generated = speaker.speak(
            codec,
            [text or "" for text in part.texts],
            s.sampling,
            speed=s.speed,
            seed=s.seed,
            item_ids=part.items,
            batch_size=s.generation_batch,
            progress=accelerator.is_main_process,
        )
    generated = gather_object(generated)

    # 5. Score, and save some utterances. Generated clips have lengths of their own.
    if accelerator.is_main_process:
        rate = codec.spec.sample_rate
        audio = {
            "original": held_out.originals,
            "resynthesis": held_out.resynthesis(),
            "generated": [g.waveform for g in generated],
        }
        columns = [Column(row, row, s.codec, rate, clips) for row, clips in audio.items()]
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
            mos_reference=longest_clip(s.corpus, tokens),
        )
        content = scores.to_dict()
        write_json(run / "clips.json", content.pop("clips"))
        seconds = {"generate_and_score": time.monotonic() - began, "train": training.seconds}
        about = {"steps": training.step, "seconds": seconds, "codec": codec.spec.name}
        write_json(run / "metrics.json", {**content, **about})
        on = f"{len(held_out)} test clips of {test_tokens.provenance.corpus}, from text alone"
        rows = scores.means.rows_as_dict()
        speaker.model.write_card(run / "model", replace(card, scores=rows, scored_on=on))
        say(f"\n{scores}")
        say(f"outputs: {run} (samples, curves.png, spectrograms.png, metrics.json)")
    accelerator.end_training()
    return 0


if __name__ == "__main__":
    run_recipe(main)
