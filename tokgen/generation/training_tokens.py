"""Open the data of a generator: its codec, tokens to train on, and test utterances.

The tokens are those of a corpus, or an existing token dataset.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from tokgen.codec.base import Codec
from tokgen.codec.spec import DEPTH
from tokgen.generation.corpora import SPEECH, check_corpora, training_and_test_tokens
from tokgen.generation.held_out import HeldOut, choose_held_out
from tokgen.tokens.columns import conditioning_column
from tokgen.tokens.dataset import TokenDataset, check_codec, load_tokens
from tokgen.tokens.splitting import with_test_split
from tokgen.zoo.lookup import as_codec
from tokgen.zoo.recorded import codec_of

__all__ = ["GeneratorData", "open_generator_data", "open_training_tokens"]


@dataclass(frozen=True)
class GeneratorData:
    """Data to train a generator on, and to test it with.

    Attributes:
        codec: the codec of the tokens.
        tokens: tokens to train on.
        test_tokens: tokens with the test split; those to train on, unless it is of another corpus.
        held_out: the test utterances.
        corpus: corpus of the training audio; None if it is not at hand.
    """

    codec: Codec
    tokens: TokenDataset
    test_tokens: TokenDataset
    held_out: HeldOut
    corpus: str | None


def open_generator_data(
    tokens: str | Path | None,
    corpus: str | None,
    codec: str | Path | Codec | None,
    cache: Path,
    conditioning: str | None,
    *,
    n_test: int,
    test_corpus: str | None = None,
    min_seconds: float = 0.0,
    with_text: bool = False,
    device: str | torch.device = "auto",
) -> GeneratorData:
    """Open the data of a generator. A corpus is tokenized, unless its tokens are in `cache`.

    Args:
        tokens: existing token dataset, as in `open_training_tokens`; None tokenizes `corpus`.
        corpus: training corpus; if it has no test split, one is made (see `with_test_split`). With
            `tokens`, the audio to compare with, or None.
        codec: codec, or its name; with `tokens`, None loads the one that they name.
        cache: folder of token datasets.
        conditioning: "mfcc" or "log_mel", or None.
        n_test: number of test utterances.
        test_corpus: corpus of the test split; None or "" uses `corpus`.
        min_seconds: shortest test utterance in seconds.
        with_text: the generator speaks text: train split and test utterances need transcripts.
        device: device to load the codec on.
    Raises:
        FileNotFoundError: no such dataset or codec.
        ValueError: a split or transcripts are missing, no test utterance is long enough, the codec
            needs side information that a text does not give, or as in `open_training_tokens`.
    """
    if tokens is not None:
        found, codec = open_training_tokens(
            tokens, codec, conditioning, with_text=with_text, device=device
        )
        test = found
        if with_text:
            _check_sides(codec)
    else:
        if corpus is None or codec is None:
            raise ValueError("tokens, and corpus or codec are None: give tokens, or both of these")
        text_for = SPEECH if with_text else ""
        check_corpora(corpus, test_corpus, n=n_test, min_seconds=min_seconds, text_for=text_for)
        codec = as_codec(codec, device=device)
        if with_text:
            _check_sides(codec)
        found, test = training_and_test_tokens(corpus, test_corpus, codec, cache, conditioning)
    held_out = choose_held_out(
        test,
        codec,
        test_corpus or corpus,
        n=n_test,
        min_seconds=min_seconds,
        with_text=with_text,
    )
    return GeneratorData(codec, found, test, held_out, corpus)


def _check_sides(codec: Codec) -> None:
    """Raise ValueError if a codec cannot decode what a text gives."""
    if needed := [name for name in codec.side_names if name != DEPTH]:
        raise ValueError(
            f"{codec.spec.name} decodes with side information {needed}, which a text does not "
            "give: use a codec without it"
        )


def open_training_tokens(
    source: str | Path,
    codec: str | Path | Codec | None,
    conditioning: str | None,
    *,
    with_text: bool = False,
    device: str | torch.device = "auto",
) -> tuple[TokenDataset, Codec]:
    """Open an existing token dataset to train on, and load the codec that made it.

    If the dataset has no test split, one is made (see `with_test_split`).

    Args:
        source: folder, URL or hub id, as for `load_tokens`.
        codec: the codec of the tokens; None loads the one that they name.
        conditioning: conditioning that the tokens must have, or None.
        with_text: the train split must have transcripts.
        device: device to load the codec on.
    Raises:
        FileNotFoundError: no such dataset or codec.
        ValueError: the tokens are of another codec, have another conditioning or none, no
            transcripts, or too few rows to make a split.
    """
    tokens = with_test_split(load_tokens(source))
    if "train" not in tokens.splits:
        raise ValueError(f"the tokens in {source} have no train split: {sorted(tokens.splits)}")
    if with_text and not any(text and text.strip() for text in tokens.splits["train"]["text"]):
        raise ValueError(
            f"the tokens in {source} have no transcripts in their train split, and {SPEECH} needs "
            "them: tokenize a corpus with transcripts"
        )
    about = tokens.provenance
    found = codec_of(about.spec, codec, device=device)
    check_codec(about, found.spec)
    if about.rate is not None and found.rate is None:
        found = found.with_rate(level=about.level, bitrate=about.bitrate)
    has = conditioning_column(tokens.splits["train"])
    if conditioning is not None and has is None:
        raise ValueError(
            f"the tokens in {source} have no conditioning: tokenize with --conditioning "
            f"{conditioning}"
        )
    if conditioning is not None and has != conditioning:
        raise ValueError(
            f"the tokens in {source} have the conditioning {has}, not {conditioning}: set "
            f"conditioning to {has}"
        )
    return tokens, found
