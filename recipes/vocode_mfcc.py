"""Train a masked transformer to vocode: MFCC -> codes -> waveform, and score what it generates.

    accelerate launch recipes/vocode_mfcc.py                                    # minutes, on a CPU
    accelerate launch recipes/vocode_mfcc.py --config recipes/vocode_mfcc.paper.yaml

This is the downstream experiment of Code Drift (O'Reilly et al., section V): a SoundStorm-like
masked transformer predicts a codec's tokens from a 30-bin MFCC at the codec's frame rate. The
same command again continues an interrupted run. Everything lands in runs/<name>/.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from tokgen.audio import write_audio
from tokgen.batches import CropDataset, TokenBatch, collate, compute_statistics
from tokgen.corpus import open_corpus
from tokgen.evaluate import score_rows
from tokgen.generate import Generated, vocode
from tokgen.masking import training_mask
from tokgen.model import MaskedTransformer, level_accuracy, masked_cross_entropy
from tokgen.report.plots import plot_curves, plot_spectrograms
from tokgen.runs import (
    Checkpoints,
    Interrupt,
    append_history,
    claim_run,
    parse_settings,
    pick_precision,
    read_history,
    run_recipe,
    save_settings,
    step_seed,
    write_json,
)
from tokgen.sampling import SamplingSettings
from tokgen.token_dataset import sides_of
from tokgen.tokenizing import cached_tokens
from tokgen.zoo import load_codec


@dataclass(frozen=True)
class ModelSettings:
    """The transformer: a preset of `tokgen.model.PRESETS`, and what to change in it."""

    preset: str = "small"
    dim: int | None = None
    depth: int | None = None
    heads: int | None = None
    dropout: float | None = None
    embedding: str | None = None

    def overrides(self) -> dict:
        chosen = {k: v for k, v in vars(self).items() if k != "preset"}
        return {k: v for k, v in chosen.items() if v is not None}


@dataclass(frozen=True)
class Settings:
    """Settings of a vocoding run.

    Attributes:
        name: the run's folder is runs/<name>.
        corpus: a folder, Parquet file, saved dataset or hub id with train and test splits.
        codec: a name of the zoo, a folder or a hub id.
        steps: optimiser steps.
        batch_size: excerpts per process and step.
        crop_seconds: length of the excerpts.
        learning_rate: AdamW's, after `warmup` steps.
        schedule: "constant" (the paper) or "cosine" (down to 5 % at the end).
        conditioning_dropout: share of excerpts whose MFCC is hidden, for guidance.
        gradient_accumulation: batches per optimiser step.
        n_test: held-out utterances to generate, the first so many of the test split.
        test_corpus: where the test split is, if not in `corpus`.
        min_test_seconds: shorter test utterances are left out.
    """

    name: str = "vocode_mfcc"
    corpus: str = "recipes/data/allison"
    codec: str = "speech-16k"
    model: ModelSettings = field(default_factory=ModelSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    steps: int = 100_000
    batch_size: int = 32
    crop_seconds: float = 5.0
    learning_rate: float = 1e-4
    warmup: int = 0
    schedule: str = "constant"
    weight_decay: float = 0.01
    clip: float = 1.0
    conditioning_dropout: float = 0.2
    gradient_accumulation: int = 1
    mixed_precision: str = "auto"
    compile: bool = False
    workers: int = 0
    log_every: int = 20
    validate_every: int = 500
    checkpoint_every: int = 200
    tracker: str = "tensorboard"
    n_test: int = 100
    test_corpus: str | None = None
    min_test_seconds: float = 0.0
    generation_batch: int = 16
    asr: str = "auto"
    mos: str = "auto"
    n_saved: int = 8
    seed: int = 0
    runs: str = "runs"


# Settings that act after training, or on nothing but its speed and its notes.
MAY_CHANGE = (
    *("n_test", "test_corpus", "min_test_seconds", "asr", "mos", "n_saved", "sampling"),
    *("generation_batch", "checkpoint_every", "tracker", "workers", "runs"),
)


def main(argv: list[str] | None = None) -> int:
    s = parse_settings(Settings, Path(__file__).with_suffix(".yaml"), argv)
    run = Path(s.runs) / s.name
    accelerator = Accelerator(
        mixed_precision=pick_precision(s.mixed_precision),
        gradient_accumulation_steps=s.gradient_accumulation,
        log_with=None if s.tracker == "none" else s.tracker,
        project_dir=run,
        step_scheduler_with_optimizer=False,
    )
    say = accelerator.print
    set_seed(s.seed)
    started = time.monotonic()

    # 1. Tokens: made once per content of corpus and codec, found again afterwards.
    codec = load_codec(s.codec, device=str(accelerator.device))
    with accelerator.main_process_first():
        claim_run(run, s, free=MAY_CHANGE)
        tokens = cached_tokens(open_corpus(s.corpus), codec, Path(s.runs) / "tokens")
        test_tokens = tokens
        if s.test_corpus:
            heard = open_corpus(s.test_corpus, split="test")
            test_tokens = cached_tokens(heard, codec, Path(s.runs) / "tokens")
    chosen = test_rows(test_tokens.splits, s, codec.spec.sample_rate)
    if "train" not in tokens.splits:
        raise SystemExit(f"error: {s.corpus} has no train split: {sorted(tokens.splits)}")
    train, validation = tokens.splits["train"], tokens.splits.get("validation")
    hours = sum(train["n_samples"]) / codec.spec.sample_rate / 3600
    say(f"{codec}; {len(train)} training utterances, {hours:.2f} h")

    # 2. Model and data. Item i of the data depends on (seed, i) alone, so a resume just skips.
    mean, std = compute_statistics(train)
    model = MaskedTransformer.for_codec(
        codec,
        preset=s.model.preset,
        conditioning=tokens.provenance.mfcc,
        conditioning_mean=mean,
        conditioning_std=std,
        **s.model.overrides(),
    )
    model.check_codec(codec.spec)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    say(
        f"{size:.1f}M parameters ({s.model.preset}), {accelerator.num_processes} process(es) on "
        f"{accelerator.device.type}, precision {accelerator.mixed_precision}"
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay, fused=True
    )
    crop_frames = round(s.crop_seconds * codec.spec.frame_rate)
    per_step = s.batch_size * accelerator.num_processes * s.gradient_accumulation
    data = CropDataset(train, crop_frames, n_items=s.steps * per_step, seed=s.seed)
    network = torch.compile(model) if s.compile else model
    network, optimizer = accelerator.prepare(network, optimizer)
    checkpoints = Checkpoints(run / "checkpoints")
    step, saved = checkpoints.resume(accelerator)
    n_levels = codec.spec.n_codebooks
    empty = [0.0] * (2 + 2 * n_levels)  # loss, batches, then right and seen tokens per level
    since_log = torch.tensor(saved.get("since_log", empty), device=accelerator.device)
    history = [h for h in read_history(run / "history.jsonl") if h["step"] <= step]
    if step:
        say(f"continuing at step {step} of {s.steps}")
    if accelerator.is_main_process:
        write_history = append_history(run / "history.jsonl", history)
        save_settings(run, s, codec=codec.spec.as_dict(), data=tokens.provenance.as_dict())
        accelerator.init_trackers("logs")
    rest = Subset(data, range(step * per_step, len(data)))
    loader = accelerator.prepare(
        DataLoader(rest, s.batch_size, collate_fn=collate, num_workers=s.workers)
    )
    batches = iter(loader)

    # 3. Train: hide part of one level, predict it from the levels below and the MFCC.
    interrupt = Interrupt()
    bar = tqdm(total=s.steps, initial=step, unit="step", disable=not accelerator.is_main_process)
    while step < s.steps:
        for group in optimizer.param_groups:
            group["lr"] = s.learning_rate * rate_factor(step, s)
        for part in range(s.gradient_accumulation):
            batch: TokenBatch = next(batches).to(accelerator.device)
            noise = torch.Generator().manual_seed(
                step_seed(s.seed, step, part, accelerator.process_index)
            )
            mask = training_mask(batch.codes, batch.lengths, model.mask_id, noise)
            hidden = torch.rand(len(batch.codes), generator=noise) < s.conditioning_dropout
            with accelerator.accumulate(network), accelerator.autocast():
                logits = network(
                    mask.tokens,
                    batch.conditioning,
                    drop_conditioning=hidden.to(accelerator.device),
                    lengths=batch.lengths,
                    level=mask.level,
                )
                loss = masked_cross_entropy(logits, batch.codes, mask)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), s.clip)
                optimizer.step()
                optimizer.zero_grad()
            hits, seen = level_accuracy(logits, batch.codes, mask, n_levels)
            one = torch.ones_like(loss.detach())
            since_log += torch.cat([loss.detach()[None], one[None], hits, seen])
        step += 1
        bar.update()

        if step % s.log_every == 0 or step == s.steps:
            values = averages(accelerator.reduce(since_log, "sum").tolist(), n_levels)
            since_log.zero_()
            if not math.isfinite(values["loss"]):
                raise SystemExit(f"stopped at step {step}: loss {values['loss']}; lower the rate")
            if validation is not None and (step % s.validate_every == 0 or step == s.steps):
                values |= validate(network, model, validation, crop_frames, s, accelerator)
            if accelerator.is_main_process:
                write_history({"step": step, **values})
            history.append({"step": step, **values})
            accelerator.log(values, step=step)
            bar.set_postfix(loss=f"{values['loss']:.3f}")
        interrupted = interrupt.agreed(accelerator)
        if step % s.checkpoint_every == 0 or step == s.steps or interrupted:
            checkpoints.save(accelerator, step, {"since_log": since_log.tolist()})
        if interrupted:
            say(f"\ninterrupted at step {step}: checkpoint written; the same command goes on")
            return 130
    bar.close()
    interrupt.release()
    trained = time.monotonic()
    if accelerator.is_main_process:
        model.save_pretrained(run / "model")
        plot_curves(history, run / "curves.png")

    # 4. Generate the held-out utterances from their MFCCs, and without them as a floor.
    model.eval()
    test = test_tokens.splits["test"]
    with accelerator.split_between_processes(chosen) as mine:
        rows = test.select(mine)
        shared = {
            "conditioning": [torch.tensor(m, dtype=torch.float32) for m in rows["mfcc"]],
            "n_samples": list(rows["n_samples"]),
            "sides": sides_of(rows, codec.side_names),
            "settings": s.sampling,
            "seed": s.seed,
            "item_ids": list(mine),
            "batch_size": s.generation_batch,
        }
        generated = vocode(model, codec, **shared, progress=accelerator.is_main_process)
        floor = vocode(
            model, codec, **shared, unconditional=True, progress=accelerator.is_main_process
        )
    generated, floor = gather_object(generated), gather_object(floor)
    made = time.monotonic()

    # 5. Score against the original audio, and keep something to listen to.
    if accelerator.is_main_process:
        rows = test.select(chosen)
        audio = rows_of_audio(s, codec, rows, generated, floor)
        for i in range(min(s.n_saved, len(chosen))):
            for kind, clips in audio.items():
                path = run / "samples" / f"{i:03d}.{kind}.wav"
                write_audio(path, clips[i], codec.spec.sample_rate)
        shown = {k: v[0] for k, v in audio.items()}
        plot_spectrograms(shown, codec.spec.sample_rate, run / "spectrograms.png")
        scores = score_rows(
            audio,
            "original",
            list(rows["text"]),
            codec.spec.sample_rate,
            asr=s.asr,
            mos=s.mos,
            mos_reference=longest_clip(s.corpus, train, codec.spec.sample_rate),
        )
        timing = {
            "train": trained - started,
            "generate": made - trained,
            "score": time.monotonic() - made,
        }
        write_json(
            run / "metrics.json",
            {"rows": scores.as_dict(), "steps": step, "seconds": timing, "codec": codec.spec.name},
        )
        write_json(run / "clips.json", scores.per_clip)
        say("\n" + scores.table())
        say(f"outputs: {run} (samples, curves.png, spectrograms.png, metrics.json)")
    accelerator.end_training()
    return 0


def test_rows(splits, s: Settings, sample_rate: int) -> list[int]:
    """Rows of the test split to generate; said before training if there are none."""
    where, enough = s.test_corpus or s.corpus, s.min_test_seconds * sample_rate
    if "test" not in splits:
        raise SystemExit(f"error: {where} has no test split: {sorted(splits)}; give test_corpus")
    rows = [i for i, n in enumerate(splits["test"]["n_samples"]) if n >= enough][: s.n_test]
    if not rows:
        raise SystemExit(
            f"error: no test utterance of {where} to generate: n_test = {s.n_test}, "
            f"min_test_seconds = {s.min_test_seconds}"
        )
    return rows


def longest_clip(corpus: str, train, sample_rate: int) -> torch.Tensor:
    """The longest training utterance [1, N]: clean speech that is none of the test clips."""
    n_samples = train["n_samples"]
    wanted = train[max(range(len(train)), key=lambda i: n_samples[i])]["id"]
    opened = open_corpus(corpus, split="train")
    entry = next(e for e in opened.entries if e.id == wanted)
    return opened.load(entry, sample_rate).waveform


def averages(sums: list[float], n_levels: int) -> dict[str, float]:
    """Mean loss and accuracy per level from the sums since the last log line."""
    right, seen = sums[2 : 2 + n_levels], sums[2 + n_levels :]
    drawn = {f"accuracy/level{k}": right[k] / seen[k] for k in range(n_levels) if seen[k]}
    return {"loss": sums[0] / sums[1], **drawn}


def rate_factor(step: int, s: Settings) -> float:
    """Learning rate at `step` as a share of the peak."""
    rise = min(1.0, (step + 1) / s.warmup) if s.warmup else 1.0
    if s.schedule == "constant":
        return rise
    if s.schedule != "cosine":
        raise ValueError(f"schedule {s.schedule!r}: known are 'constant' and 'cosine'")
    return rise * (0.05 + 0.95 * (1 + math.cos(math.pi * step / s.steps)) / 2)


@torch.no_grad()
def validate(network, model, split, crop_frames, s, accelerator) -> dict[str, float]:
    """Loss and accuracy on one fixed excerpt and mask per validation utterance."""
    network.eval()
    data = CropDataset(split, crop_frames, n_items=len(split), seed=s.seed)
    loader = DataLoader(data, s.batch_size, collate_fn=collate)
    losses, hits, seen = [], 0.0, 0.0
    for i, batch in enumerate(loader):
        batch = batch.to(accelerator.device)
        noise = torch.Generator().manual_seed(s.seed + i)
        mask = training_mask(batch.codes, batch.lengths, model.mask_id, noise)
        with accelerator.autocast():
            logits = network(
                mask.tokens, batch.conditioning, lengths=batch.lengths, level=mask.level
            )
        losses.append(masked_cross_entropy(logits, batch.codes, mask).item())
        correct, total = level_accuracy(logits, batch.codes, mask, batch.codes.shape[1])
        hits, seen = hits + correct.sum().item(), seen + total.sum().item()
    network.train()
    return {"validation/loss": sum(losses) / len(losses), "validation/accuracy": hits / seen}


def rows_of_audio(
    s: Settings, codec, rows, generated: list[Generated], floor: list[Generated]
) -> dict[str, list[torch.Tensor]]:
    """The audio of each row of the table, [1, N] each, in the order of `rows`."""
    corpus = open_corpus(s.test_corpus or s.corpus, split="test")
    wanted = set(rows["id"])
    entries = {e.id: e for e in corpus.entries if e.id in wanted}
    originals = [corpus.load(entries[i], codec.spec.sample_rate).waveform for i in rows["id"]]
    codes = [torch.tensor(c).long().T for c in rows["codes"]]
    return {
        "original": originals,
        "resynthesis": codec.decode_batch(
            codes, list(rows["n_samples"]), sides_of(rows, codec.side_names)
        ),
        "generated": [g.waveform for g in generated],
        "unconditional": [g.waveform for g in floor],
    }


if __name__ == "__main__":
    run_recipe(main)
