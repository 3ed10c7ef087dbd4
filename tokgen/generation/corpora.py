"""Check the corpora of a generator before any work, and tokenize them."""

from __future__ import annotations

from pathlib import Path

from tokgen.codec.base import Codec
from tokgen.corpus.entries import Entry
from tokgen.corpus.listed import open_corpus
from tokgen.tokens.cache import cached_tokens
from tokgen.tokens.dataset import TokenDataset
from tokgen.tokens.engines.job import split_name
from tokgen.tokens.splitting import corpus_with_test_split, with_test_split

__all__ = ["SPEECH", "check_corpora", "training_and_test_tokens"]

SPEECH = "speech from text"


def check_corpora(
    corpus: str,
    test_corpus: str | None,
    *,
    n: int,
    min_seconds: float = 0.0,
    text_for: str = "",
) -> None:
    """Check that there are clips to train on and to test with, before any work.

    Args:
        corpus, test_corpus: as in `training_and_test_tokens`.
        n, min_seconds: as in `choose_held_out`.
        text_for: metric that needs transcripts of test clips, or "speech from text", which needs
            those of training clips too; "" for none.
    Raises:
        ValueError: a split is missing and cannot be made, no test clip is long enough, or none has
            a transcript.
    """
    opened = open_corpus(corpus).with_plain_splits()
    if opened.entries and not test_corpus:
        opened = corpus_with_test_split(opened)
    tested = open_corpus(test_corpus).with_plain_splits() if test_corpus else opened
    for split, where, setting in (("train", opened, "corpus"), ("test", tested, "test_corpus")):
        if split not in map(split_name, where.splits):
            has = ", ".join(f"{n} {name or 'train'}" for name, n in where.splits.items())
            raise ValueError(
                f"{where.name} has no {split} split: it has {has or 'no clips'}; set {setting}"
            )
    test = [e for e in tested.entries if split_name(e.split) == "test"]
    if min_seconds > 0:
        chosen = tested.select(ids=[e.id for e in test], min_seconds=min_seconds)
        if not chosen.entries:
            raise ValueError(
                f"no test utterance of {tested.name} to generate: n_test = {n}, "
                f"min_test_seconds = {min_seconds}"
            )
    if text_for and not any(map(_speaks, test)):
        fix = "add them" if text_for == SPEECH else "leave it out of metrics"
        raise ValueError(f"{tested.name} has no transcripts for {text_for}: {fix}")
    train = [e for e in opened.entries if split_name(e.split) == "train"]
    if text_for == SPEECH and not any(map(_speaks, train)):
        raise ValueError(
            f"{opened.name} has no transcripts in its train split for {text_for}: add them"
        )


def _speaks(entry: Entry) -> bool:
    """Return whether a clip has a transcript."""
    return bool(entry.text and entry.text.strip())


def training_and_test_tokens(
    corpus: str,
    test_corpus: str | None,
    codec: Codec,
    cache: Path,
    conditioning: str | None,
) -> tuple[TokenDataset, TokenDataset]:
    """Tokenize the training and the test corpus, or read their tokens from `cache`.

    Without `test_corpus`, a corpus that has no test split gets one, as in `with_test_split`.

    Args:
        corpus: training corpus; it also holds the test split if `test_corpus` is None or empty.
        test_corpus: corpus of the test split.
        codec: the codec that makes the tokens.
        cache: folder of token datasets.
        conditioning: conditioning to store, "mfcc" or "log_mel", or None.
    Returns:
        tokens to train on, and tokens with the test split.
    Raises:
        ValueError: the corpus has no train split, or too few clips to make a test split.
    """
    opened = open_corpus(corpus).with_plain_splits()
    splits = [split_name(name) for name in opened.splits]
    lacks_test = bool(splits) and not test_corpus and "test" not in splits
    if "train" not in splits and not lacks_test:
        raise ValueError(f"{corpus} has no train split; it has {', '.join(splits) or 'no clips'}")
    tokens = cached_tokens(opened, codec, cache, conditioning=conditioning)
    if lacks_test and tokens.splits:
        tokens = with_test_split(tokens)
    if "train" not in tokens.splits:  # all its clips were rejected
        raise ValueError(f"{corpus} has no train split: {sorted(tokens.splits)}")
    if not test_corpus:
        return tokens, tokens
    test = open_corpus(test_corpus, split="test")
    return tokens, cached_tokens(test, codec, cache, conditioning=conditioning)
