"""Test utterances: choose them, generate them, and resynthesize them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from tokgen.codec.base import Codec
from tokgen.codec.spec import DEPTH, Side
from tokgen.codec.stable.settings import StableDecoding
from tokgen.corpus.listed import Corpus, open_corpus
from tokgen.generation.clips import Generated, generate_clips
from tokgen.generation.prompts import task_prompt
from tokgen.generation.settings import SamplingSettings, TaskSettings
from tokgen.modelling.transformer import TokenTransformer
from tokgen.runs.device import float64
from tokgen.runs.store import ClipStore, hash_audio
from tokgen.tokens.columns import codes_of, conditioning_of, sides_of
from tokgen.tokens.dataset import TokenDataset

__all__ = [
    "HeldOut",
    "choose_held_out",
    "held_out_clips",
    "held_out_ids",
    "longest_clip",
]


@dataclass(frozen=True)
class HeldOut:
    """Test utterances and their codes from one codec. All lists have the same order.

    Attributes:
        codec: the codec that made the codes.
        ids: utterance ids.
        items: row numbers in the test split; they select each utterance's noise.
        texts: transcripts, None if unknown.
        n_samples: lengths in samples at the codec's rate.
        codes: int64 [K, T] each.
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
    def depths(self) -> list[Tensor] | None:
        """Levels of each frame, int64 [T] each; None if all frames have all levels."""
        if not self.sides or DEPTH not in self.sides[0]:
            return None
        return [side[DEPTH].long() for side in self.sides]

    @property
    def seconds(self) -> float:
        """Total duration of the audio in seconds."""
        return sum(self.n_samples) / self.codec.spec.sample_rate

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that generation and scores depend on, codec weights included."""
        text = json.dumps([self.codec.spec.weight_hash, self.ids, self.items, self.texts])
        depths = [depth.float() for depth in self.depths or []]
        audio = hash_audio([*self.originals, *(self.conditioning or []), *depths])
        return hashlib.sha256(f"{text} {audio}".encode()).hexdigest()

    def keep(self, task: TaskSettings, *, seed: int) -> list[Tensor]:
        """Return the mask of kept codes, bool [K, T], of each utterance."""
        return [
            task_prompt(task, self.codec.spec, n, seed=seed, item=item)
            for n, item in zip(self.n_samples, self.items, strict=True)
        ]

    def generated_seconds(self, task: TaskSettings, *, seed: int) -> float:
        """Return the seconds of audio in frames that have at least one generated code."""
        total = 0.0
        for n, keep in zip(self.n_samples, self.keep(task, seed=seed), strict=True):
            total += n * float(float64((~keep).any(0)).mean())
        return total / self.codec.spec.sample_rate

    def part(self, members: Sequence[int]) -> HeldOut:
        """Return the utterances at the given positions."""
        lists: dict[str, Any] = {
            name: None if values is None else [values[i] for i in members]
            for name, values in vars(self).items()
            if name != "codec"
        }
        return replace(self, **lists)

    def resynthesis(self) -> list[Tensor]:
        """Decode the codes to waveforms [1, N]: the best result that a generator can reach."""
        return self.codec.decode_batch(self.codes, self.n_samples, self.sides)

    def generate(
        self,
        model: TokenTransformer,
        task: TaskSettings,
        sampling: SamplingSettings,
        *,
        seed: int,
        unconditional: bool = False,
        batch_size: int = 16,
        store: ClipStore | None = None,
        stable: bool | StableDecoding = False,
        progress: bool = False,
    ) -> list[Generated]:
        """Generate each utterance according to `task`.

        Args:
            task: settings of the task.
            seed: seed of the noise and of the gaps of "infill".
            unconditional: ignore the conditioning.
            model, sampling, batch_size, store, stable, progress: as in `generate_clips`.
        Raises:
            ValueError: task "vocode" without conditioning.
        """
        if task.name == "vocode" and self.conditioning is None:
            raise ValueError(
                "task 'vocode' generates from a conditioning, and these tokens have none: "
                "use conditioning mfcc or log_mel, or task continue or infill"
            )
        conditioned = (task.name == "vocode" or task.conditioned) and not unconditional
        keeps = task.name != "vocode"
        return generate_clips(
            model,
            self.codec,
            self.n_samples,
            sampling,
            codes=self.codes if keeps else None,
            keep=self.keep(task, seed=seed) if keeps else None,
            conditioning=self.conditioning if conditioned else None,
            sides=self.sides,
            seed=seed,
            item_ids=self.items,
            batch_size=batch_size,
            store=store,
            stable=stable,
            progress=progress,
        )


def choose_held_out(
    tokens: TokenDataset,
    codec: Codec,
    corpus: str | None,
    *,
    n: int,
    min_seconds: float = 0.0,
    ids: Sequence[str] | None = None,
    with_text: bool = False,
) -> HeldOut:
    """Choose the first `n` utterances of the test split that are long enough.

    Args:
        tokens: tokens with a test split, made from `corpus` by `codec`.
        corpus: a corpus as `open_corpus` accepts it. None if the audio is not at hand: the
            originals are then what the codec decodes.
        n: maximum number of utterances.
        min_seconds: shortest duration in seconds.
        ids: choose only these; None chooses among all.
        with_text: choose only utterances with a transcript.
    Raises:
        ValueError: there is no test split, or it has no such utterance.
    """
    if n < 1:
        raise ValueError(f"n_test = {n}: must be at least 1")
    name = tokens.provenance.corpus if corpus is None else corpus
    known = held_out_ids(tokens, min_seconds, name)
    chosen = set(known if ids is None else ids) & set(known)
    split = tokens.splits["test"]
    items = [i for i, one in enumerate(split["id"]) if one in chosen]
    if with_text:
        texts = split["text"]
        items = [i for i in items if texts[i] and texts[i].strip()]
    items = items[:n]
    if not items:
        spoken = " with a transcript" if with_text else ""
        raise ValueError(
            f"no test utterance of {name}{spoken} to generate: n_test = {n}, "
            f"min_test_seconds = {min_seconds}"
        )
    rows = split.select(items)
    found = HeldOut(
        codec=codec,
        ids=list(rows["id"]),
        items=items,
        texts=list(rows["text"]),
        n_samples=list(rows["n_samples"]),
        codes=codes_of(rows),
        conditioning=conditioning_of(rows),
        sides=sides_of(rows, codec.side_names),
        originals=[],
    )
    if corpus is None:
        return replace(found, originals=found.resynthesis())
    clips = held_out_clips(corpus, found.ids)
    entries = {entry.id: entry for entry in clips.entries}
    rate = codec.spec.sample_rate
    return replace(found, originals=[clips.load(entries[i], rate).waveform for i in found.ids])


def held_out_clips(corpus: str, ids: Sequence[str]) -> Corpus:
    """Return the clips of test utterances.

    The test split may have been made from the tokens. So a clip that is not in the test split of
    the corpus may be in any other.

    Args:
        corpus: a corpus as `open_corpus` accepts it.
        ids: ids of test utterances.
    Raises:
        ValueError: the corpus lacks one of them.
    """
    opened = open_corpus(corpus).with_plain_splits()
    wanted, entries = set(ids), opened.entries
    tested = {entry.id for entry in entries if entry.split == "test"}
    chosen = [e for e in entries if e.id in wanted and (e.split == "test" or e.id not in tested)]
    if missing := wanted - {entry.id for entry in chosen}:
        raise ValueError(
            f"{corpus} lacks {len(missing)} of the test utterances of the tokens, such as "
            f"{min(missing)!r}: give the corpus that they were made of, or none"
        )
    return Corpus(opened.name, chosen, opened.rejections, opened.store, opened.longest_seconds)


def held_out_ids(tokens: TokenDataset, min_seconds: float, corpus: str) -> list[str]:
    """Return the ids of the test utterances that are long enough.

    Args:
        tokens: tokens with a test split.
        min_seconds: shortest duration in seconds.
        corpus: name of the corpus, for the error.
    Raises:
        ValueError: there is no test split.
    """
    if "test" not in tokens.splits:
        raise ValueError(f"{corpus} has no test split: {sorted(tokens.splits)}; set test_corpus")
    split = tokens.splits["test"]
    enough = min_seconds * tokens.provenance.sample_rate
    pairs = zip(split["id"], split["n_samples"], strict=True)
    return [name for name, length in pairs if length >= enough]


def longest_clip(corpus: str | None, tokens: TokenDataset, codec: Codec | None = None) -> Tensor:
    """Load the longest training utterance [1, N], for use as the reference of the MOS metric.

    It is the longest of those that the corpus has. Without a corpus, or if it has none of them,
    `codec` decodes the longest.

    Raises:
        ValueError: there is no audio, and no codec.
    """
    train = tokens.splits["train"]
    n_samples, ids = train["n_samples"], train["id"]
    order = sorted(range(len(train)), key=lambda i: -n_samples[i])
    if corpus is not None:
        opened = open_corpus(corpus)
        entries = {entry.id: entry for entry in reversed(opened.entries)}  # the first of each id
        found = next((entries[ids[i]] for i in order if ids[i] in entries), None)
        if found is not None:
            return opened.load(found, tokens.provenance.sample_rate).waveform
    if codec is None:
        raise ValueError(
            f"corpus {corpus} has none of the training utterances of the tokens, and there is no "
            "codec to decode one: give the corpus that they were made of, or a codec"
        )
    return tokens.decode(codec, "train", order[0])[0]
