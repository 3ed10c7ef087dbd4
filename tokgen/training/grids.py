"""Training clips on other grids of frames: more codes of the same speech.

The codes of a clip change when it begins a few milliseconds later, because other samples meet in a
frame. A model that trains on several grids overfits less.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tokgen.codec.base import Codec
from tokgen.corpus.cuts import Cut, CutStore
from tokgen.corpus.entries import Entry
from tokgen.corpus.listed import Corpus
from tokgen.tokens.cache import cached_tokens
from tokgen.tokens.dataset import TokenDataset, concatenate_tokens

__all__ = ["add_grids", "on_other_grids"]


def on_other_grids(corpus: Corpus, frame_rate: float, grids: int) -> Corpus:
    """Return `grids` - 1 copies of the train split; each begins another part of a frame later.

    Args:
        corpus: corpus with a train split.
        frame_rate: frames per second. Starts are rounded to milliseconds, at least 1.
        grids: number of grids, that of the corpus itself included.
    """
    train = corpus.select("train").entries
    entries: list[Entry] = []
    cuts: list[Cut] = []
    for grid in range(1, grids):
        start = max(1, round(1000 * grid / grids / frame_rate))
        for entry in train:
            seconds = None if entry.seconds is None else max(0.0, entry.seconds - start / 1000)
            entries.append(
                replace(entry, id=f"{entry.id}@{start}ms", seconds=seconds, key=len(cuts))
            )
            cuts.append(Cut(entry.key, start=start))
    store = CutStore(corpus.store, cuts)
    return Corpus(f"{corpus.name} on {grids} grids", entries, [], store, corpus.longest_seconds)


def add_grids(
    tokens: TokenDataset, corpus: Corpus, codec: Codec, grids: int, cache: Path
) -> TokenDataset:
    """Add the codes of the train split on other grids to a token dataset.

    Args:
        tokens: tokens of `corpus` by `codec`, without conditioning.
        corpus: corpus with a train split.
        codec: codec of the tokens.
        grids: see `on_other_grids`; 1 adds nothing.
        cache: folder of token datasets.
    """
    if grids == 1:
        return tokens
    corpus = corpus.with_plain_splits()
    if tokens.made_test_split:
        train = set(tokens.splits["train"]["id"])
        corpus = corpus.select(ids=[entry.id for entry in corpus.entries if entry.id in train])
        entries = [replace(entry, split="train") for entry in corpus.entries]
        corpus = Corpus(
            corpus.name, entries, corpus.rejections, corpus.store, corpus.longest_seconds
        )
    others = on_other_grids(corpus, codec.spec.frame_rate, grids)
    return concatenate_tokens([tokens, cached_tokens(others, codec, cache, conditioning=None)])
