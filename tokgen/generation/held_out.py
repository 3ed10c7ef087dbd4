"""The utterances that are generated and scored, as one codec sees them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokgen.codec.base import Codec
from tokgen.codec.spec import Side
from tokgen.corpus.listed import open_corpus
from tokgen.generation.generate import Generated, regenerate, vocode
from tokgen.generation.prompts import TaskSettings
from tokgen.generation.sampling import SamplingSettings
from tokgen.modelling.masked import MaskedTransformer
from tokgen.runs.store import ClipStore, hash_audio
from tokgen.tokens.dataset import TokenDataset, conditioning_of, sides_of
from tokgen.tokens.tokenizing import cached_tokens


@dataclass(frozen=True)
class HeldOut:
    """Test utterances; all lists are in the same order.

    Attributes:
        codec: whose codes these are.
        ids: of the utterances.
        items: their rows in the test split; noise is drawn by them.
        texts: transcripts, None where there is none.
        n_samples: at the codec's rate.
        codes: int64 [K, T].
        conditioning: [T, C] each, or None.
        sides: side information each, or None.
        originals: waveforms [1, N] at the codec's rate.
    """

    codec: Codec
    ids: list[str]
    items: list[int]
    texts: list[str | None]
    n_samples: list[int]
    codes: list[Tensor]
    conditioning: list[Tensor] | None
    sides: list[Side] | None
    originals: list[Tensor]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def seconds(self) -> float:
        """Of audio."""
        return sum(self.n_samples) / self.codec.spec.sample_rate

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over what generation and scores depend on, the codec's weights included."""
        text = json.dumps([self.codec.spec.weight_hash, self.ids, self.items, self.texts])
        audio = hash_audio([*self.originals, *(self.conditioning or [])])
        return hashlib.sha256(f"{text} {audio}".encode()).hexdigest()

    def generated_seconds(self, task: TaskSettings, *, seed: int) -> float:
        """Seconds of audio in frames that `task` does not keep whole."""
        total = 0.0
        for n, item in zip(self.n_samples, self.items, strict=True):
            keep = task.keep(self.codec.spec, n, seed=seed, item=item)
            total += n * float((~keep).any(0).double().mean())
        return total / self.codec.spec.sample_rate

    def part(self, members: Sequence[int]) -> HeldOut:
        """Some of them, by position."""

        def pick(values: list | None) -> list | None:
            return None if values is None else [values[i] for i in members]

        lists = {k: pick(v) for k, v in vars(self).items() if k != "codec"}
        return HeldOut(self.codec, **lists)  # type: ignore[arg-type]

    def resynthesis(self) -> list[Tensor]:
        """Waveforms [1, N] decoded from the codes: the best that a generator could do."""
        return self.codec.decode_batch(self.codes, self.n_samples, self.sides)

    def generate(
        self,
        model: MaskedTransformer,
        task: TaskSettings,
        sampling: SamplingSettings,
        *,
        seed: int,
        unconditional: bool = False,
        batch_size: int = 16,
        store: ClipStore | None = None,
        progress: bool = False,
    ) -> list[Generated]:
        """Generate each utterance as `task` says; arguments as in `vocode`.

        Raises:
            ValueError: "vocode" without conditioning.
        """
        more: dict[str, Any] = {
            "sides": self.sides,
            "seed": seed,
            "item_ids": self.items,
            "batch_size": batch_size,
            "store": store,
            "progress": progress,
        }
        if task.name == "vocode":
            if self.conditioning is None:
                raise ValueError(
                    "task 'vocode' generates from a conditioning and these tokens have none: "
                    "take conditioning mfcc or log_mel, or task continue or infill"
                )
            return vocode(
                model,
                self.codec,
                self.conditioning,
                self.n_samples,
                sampling,
                unconditional=unconditional,
                **more,
            )
        told = task.conditioned and not unconditional
        return regenerate(
            model,
            self.codec,
            self.codes,
            [
                task.keep(self.codec.spec, n, seed=seed, item=i)
                for n, i in zip(self.n_samples, self.items, strict=True)
            ],
            self.n_samples,
            sampling,
            conditioning=self.conditioning if told else None,
            **more,
        )


def choose_held_out(
    tokens: TokenDataset, codec: Codec, corpus: str, *, n: int, min_seconds: float = 0.0
) -> HeldOut:
    """The first `n` utterances of the test split that are long enough.

    Args:
        tokens: holds a test split, made from `corpus` by `codec`.
        corpus: as `open_corpus` takes it.
        n: at most so many.
        min_seconds: shorter ones are left out.
    Raises:
        ValueError: no test split, or no utterance in it to take.
    """
    if "test" not in tokens.splits:
        raise ValueError(f"{corpus} has no test split: {sorted(tokens.splits)}; give test_corpus")
    if n < 1:
        raise ValueError(f"n_test = {n}: must be at least 1")
    split = tokens.splits["test"]
    enough = min_seconds * codec.spec.sample_rate
    items = [i for i, length in enumerate(split["n_samples"]) if length >= enough][:n]
    if not items:
        raise ValueError(
            f"no test utterance of {corpus} to generate: n_test = {n}, "
            f"min_test_seconds = {min_seconds}"
        )
    rows = split.select(items)
    opened = open_corpus(corpus, split="test")
    wanted = set(rows["id"])
    entries = {e.id: e for e in opened.entries if e.id in wanted}
    rate = codec.spec.sample_rate
    return HeldOut(
        codec=codec,
        ids=list(rows["id"]),
        items=items,
        texts=list(rows["text"]),
        n_samples=list(rows["n_samples"]),
        codes=[torch.tensor(c).long().T for c in rows["codes"]],
        conditioning=conditioning_of(rows),
        sides=sides_of(rows, codec.side_names),
        originals=[opened.load(entries[i], rate).waveform for i in rows["id"]],
    )


def training_and_test_tokens(
    corpus: str,
    test_corpus: str | None,
    codec: Codec,
    cache: Path,
    conditioning: str | None,
) -> tuple[TokenDataset, TokenDataset]:
    """Tokens to train on and tokens that hold the test split, made once and found again.

    Raises:
        ValueError: the corpus has no train split.
    """
    tokens = cached_tokens(open_corpus(corpus), codec, cache, conditioning=conditioning)
    if "train" not in tokens.splits:
        raise ValueError(f"{corpus} has no train split: {sorted(tokens.splits)}")
    if not test_corpus:
        return tokens, tokens
    heard = open_corpus(test_corpus, split="test")
    return tokens, cached_tokens(heard, codec, cache, conditioning=conditioning)


def longest_clip(corpus: str, tokens: TokenDataset) -> Tensor:
    """The longest training utterance [1, N]: clean speech that is none of the test clips."""
    train = tokens.splits["train"]
    n_samples = train["n_samples"]
    wanted = train[max(range(len(train)), key=lambda i: n_samples[i])]["id"]
    opened = open_corpus(corpus, split="train")
    entry = next(e for e in opened.entries if e.id == wanted)
    return opened.load(entry, tokens.provenance.sample_rate).waveform
