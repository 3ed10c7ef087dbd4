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

from pathlib import Path

from tokgen.codec_training.offline_settings import (
    OfflineSettings,
    check_sources,
    decoder_settings,
)
from tokgen.runs.interrupts import plain_errors, run_recipe
from tokgen.runs.locks import lock_folder
from tokgen.runs.settings import (
    begin_recipe,
    claim_run,
    command_of,
    parse_settings,
    save_settings,
)

MAX_HELD_OUT = 20_000  # frames
MAY_CHANGE = ("finetune_decoder", "finetune", "validation", "runs")  # the codes stay the same

if __name__ == "__main__":
    begin_recipe(OfflineSettings, __file__, check_sources)

from torch import Tensor

from tokgen.codec.base import Codec
from tokgen.codec.identity import unclaimed
from tokgen.codec_training.train import train_codec
from tokgen.corpus.listed import open_corpus
from tokgen.nn.cards import ModelCardFacts
from tokgen.quantizers.offline.base import share_left
from tokgen.quantizers.offline.registry import make_quantizer
from tokgen.runs.accelerator import make_accelerator
from tokgen.runs.folder import write_json
from tokgen.tokens.cache import cached_latents
from tokgen.tokens.latents import draw_frames
from tokgen.zoo.continuous import load_continuous
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.offline import OfflineCodec
from tokgen.zoo.offline_fitting import fit_codec, levels_for


def main(argv: list[str] | None = None) -> int:
    s = parse_settings(OfflineSettings, Path(__file__).with_suffix(".yaml"), argv)
    run = Path(s.runs) / s.name
    with lock_folder(run), plain_errors():
        return quantize(s, run, command_of(__file__, argv))


def quantize(s: OfflineSettings, run: Path, command: str) -> int:
    """Encode, fit and tune in the folder `run`. Returns the exit code."""
    accelerator = make_accelerator(run, "no", "none")
    continuous = load_continuous(s.codec)
    n_codebooks = levels_for(s.bitrate, continuous.spec.frame_rate, s.codebook_size)
    about = {"codec": continuous.spec.as_dict()}
    with accelerator.main_process_first():
        claim_run(run, s, free=(*MAY_CHANGE, *unclaimed(continuous.spec, "codec")), **about)

        # 1. Latents. Those of a corpus are reused if it and the codec have not changed.
        cache = Path(s.runs) / "latents"
        latents = [cached_latents(open_corpus(c), continuous, cache) for c in s.corpora]
        held = latents[0]
        if s.validation is not None:
            held = cached_latents(open_corpus(s.validation), continuous, cache)
    if accelerator.is_main_process:
        save_settings(run, s, **about)
    frames = draw_frames(latents, s.frames, seed=s.seed)
    validation = held.sample_frames("validation", MAX_HELD_OUT, seed=s.seed)
    accelerator.print(f"{len(frames)} frames to fit to, {len(validation)} held out")

    # 2. The quantizer.
    shape = {"n_codebooks": n_codebooks, "codebook_size": s.codebook_size}
    settings = {"dim": continuous.spec.latent_dim, **shape, **s.quantizer_settings}
    hours, base = len(frames) / continuous.spec.frame_rate / 3600, continuous.spec.name
    fitted = fit_codec(
        continuous,
        make_quantizer(s.quantizer, **settings),
        frames,
        run,
        name=s.name,
        beam=s.beam,
        training=s.training,
        validation=validation,
        seed=s.seed,
        accelerator=accelerator,
        card=ModelCardFacts(", ".join(s.corpora), hours=hours, base=base, command=command),
    )
    if fitted is None:
        accelerator.end_training()
        return 130
    accelerator.wait_for_everyone()

    # 3. What it leaves of held-out frames, and the decoder.
    if accelerator.is_main_process:
        codec = load_codec(run / "codec")
        found = {**measure(codec, validation), "fit_seconds": fitted["seconds"]}
        write_json(run / "metrics.json", found)
        accelerator.print(
            f"{codec}: leaves {found['share_left']:.4f} of the variance of held-out frames, after "
            f"{fitted['seconds']:.0f} CPU seconds of fitting"
        )
    done = run / "codec"
    accelerator.end_training()
    if s.finetune_decoder:
        tuning = decoder_settings(s, str(run / "codec"), name="finetuned", runs=str(run))
        if train_codec(tuning, command=command, audio=Path(s.runs) / "audio") is None:
            return 130
        done = run / tuning.name / "codec"
    accelerator.print(f"codec: {done}\nnext: tokgen score --codec {done} --corpus {s.corpora[0]}")
    return 0


def measure(codec: Codec, validation: Tensor) -> dict[str, float]:
    """Return the share of variance left of held-out frames, with the codec's beam and greedily."""
    assert isinstance(codec, OfflineCodec)
    quantizer, found = codec.model.quantizer, {}
    for name, beam in (("share_left", codec.model.beam), ("share_left_greedy", 1)):
        decoded = quantizer.decode(quantizer.encode(validation, beam=beam))
        found[name] = share_left(validation, decoded)
    return {**found, "n_frames": len(validation)}


if __name__ == "__main__":
    run_recipe(main)
