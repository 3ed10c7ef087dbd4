"""Train a codec in phases: first without its quantizer, then only the decoder, then everything.

    accelerate launch -q recipes/train_codec.py --config recipes/train_codec.yaml \
        --corpora '[en.parquet, es.parquet, fr.parquet, it.parquet]'

Settings control the phases: a phase of 0 steps is skipped. `--architecture dac` with
`--continuous_steps 0 --adversarial_start 0` is DAC's own recipe. By default, losses,
discriminators and optimiser are DAC's (Kumar et al. 2023); the spectral distance is added here.
train_codec.encodec24k.yaml and train_codec.encodec48k.yaml have those of EnCodec (Défossez et al.
2022). Run the same command again to continue an interrupted run. The
training loop is `tokgen.codec_training.train.train_codec`.
"""

from __future__ import annotations

from pathlib import Path

from tokgen.codec_training.settings import CodecTrainingSettings, check_sources
from tokgen.runs.interrupts import plain_errors, run_recipe
from tokgen.runs.settings import begin_recipe, command_of, parse_settings

if __name__ == "__main__":
    begin_recipe(CodecTrainingSettings, __file__, check_sources)

from tokgen.codec_training.train import train_codec


def main(argv: list[str] | None = None) -> int:
    s = parse_settings(CodecTrainingSettings, Path(__file__).with_suffix(".yaml"), argv)
    with plain_errors():
        history = train_codec(s, command=command_of(__file__, argv))
    return 130 if history is None else 0


if __name__ == "__main__":
    run_recipe(main)
