"""Tokens and test utterances of the codecs of a comparison."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from itertools import repeat
from pathlib import Path

from tokgen.audio.files import AudioError
from tokgen.codec.base import Codec
from tokgen.codec.depth import OutOfReach
from tokgen.comparison.lines import Entry
from tokgen.comparison.settings import ComparisonSettings
from tokgen.comparison.telephone import check_codec
from tokgen.drift.depths import name_of
from tokgen.evaluation.metric import OF_TEXT
from tokgen.generation.corpora import check_corpora, training_and_test_tokens
from tokgen.generation.held_out import choose_held_out, held_out_clips, held_out_ids
from tokgen.generation.training_tokens import open_training_tokens
from tokgen.metrics.failures import Failure
from tokgen.runs.store import slug
from tokgen.tokens.columns import conditioning_column
from tokgen.tokens.dataset import TokenDataset
from tokgen.zoo.lookup import as_codec

__all__ = ["lost_notes", "prepare_entries"]


def prepare_entries(
    s: ComparisonSettings, codecs: Sequence[str | Path | Codec], cache: Path, device: str
) -> tuple[list[Entry], list[Failure]]:
    """Load the codecs and tokenize the corpus with each, or reuse the tokens.

    Args:
        s: settings.
        codecs: the codecs of `s.codec`, as names or objects; empty for those that tokens name.
        cache: folder to keep the token datasets in.
        device: device for codecs that are given by name.
    Returns:
        the entries, all with the same test utterances, and the utterances before the last of them
        that a codec could not encode, with the reason. These are in no row of the comparison.
    """
    entries: list[Entry] = []
    enough = max(s.min_test_seconds, s.task.shortest_seconds)
    spoken = [name for name in OF_TEXT if name in s.metrics]
    conditioning = None if s.conditioning == "none" else s.conditioning
    tokens: list[tuple[TokenDataset, TokenDataset]] = []
    if s.tokens:
        loaded = []
        named: str | Path | Codec | None
        for source, named in zip(s.tokens, codecs or repeat(None, len(s.tokens)), strict=True):
            found, codec = open_training_tokens(source, named, conditioning, device=device)
            _check_whole(found, codec, source, conditioning)
            tokens.append((found, found))
            loaded.append(_named(codec))
        _check_same_corpus([found for found, _ in tokens], s.tokens)
    else:
        text_for = spoken[0] if spoken else ""
        check_corpora(s.corpus, s.test_corpus, n=s.n_test, min_seconds=enough, text_for=text_for)
        loaded = [_named(as_codec(named, device=device)) for named in codecs]
    names = [codec.spec.name for codec in loaded]
    if len({slug(name) for name in names}) < len(names):
        raise ValueError(f"codecs are named {names}: rename a folder, so that they differ")
    for spec in (codec.spec for codec in loaded):
        if s.task.levels > spec.n_codebooks:
            raise ValueError(f"levels = {s.task.levels}: {spec.name} has {spec.n_codebooks}")
    for codec in loaded if s.telephone.rounds else ():
        check_codec(codec, s.telephone)
    test_corpus = s.test_corpus or s.corpus
    tokens = tokens or [
        training_and_test_tokens(s.corpus, s.test_corpus, codec, cache, conditioning)
        for codec in loaded
    ]
    coded = [held_out_ids(test, enough, test_corpus) for _, test in tokens]
    common = [i for i in coded[0] if all(i in ids for ids in coded[1:])][: s.n_test]
    if not common:
        raise ValueError(
            f"the test splits of {', '.join(names)} have no utterance in common: tokenize one "
            "corpus with all codecs"
        )
    for codec, (train, test) in zip(loaded, tokens, strict=True):
        held_out = choose_held_out(
            test, codec, test_corpus, n=s.n_test, min_seconds=enough, ids=common
        )
        if entries:  # rows of the first codec's dataset, which select the noise
            held_out = replace(held_out, items=entries[0].held_out.items)
        if spoken and not any(held_out.texts):
            raise ValueError(
                f"{test_corpus} has no transcripts for {spoken[0]}: leave it out of metrics"
            )
        entries.append(Entry(codec.spec.name, train, held_out))
    return entries, _lost(loaded, coded, common, test_corpus)


def _check_whole(tokens: TokenDataset, codec: Codec, source: str, conditioning: str | None) -> None:
    """Raise ValueError if tokens are not what a comparison would make with their codec."""
    about, spec = tokens.provenance, codec.spec
    if about.n_codebooks != spec.n_codebooks:
        raise ValueError(
            f"the tokens in {source} have {about.n_codebooks} levels, but {spec.name} has "
            f"{spec.n_codebooks}: tokenize with all levels, or give the codec at the bitrate of "
            "the tokens, such as --codec NAME:KBPS"
        )
    has = conditioning_column(tokens.splits["train"])
    if conditioning is None and has is not None:
        raise ValueError(
            f"the tokens in {source} have the conditioning {has}, not none: set conditioning to "
            f"{has}, or tokenize with --conditioning none"
        )


def _check_same_corpus(tokens: Sequence[TokenDataset], sources: Sequence[str]) -> None:
    """Raise ValueError if token datasets were made of different corpora."""
    first = tokens[0].provenance
    for source, found in zip(sources, tokens, strict=True):
        about = found.provenance
        if about.corpus_fingerprint != first.corpus_fingerprint:
            raise ValueError(
                f"the tokens in {sources[0]} are of the corpus {first.corpus!r} (fingerprint "
                f"{first.corpus_fingerprint[:12]}), those in {source} of {about.corpus!r} "
                f"({about.corpus_fingerprint[:12]}): compare codecs on tokens of one corpus"
            )


def _lost(
    codecs: Sequence[Codec], coded: Sequence[Sequence[str]], common: Sequence[str], corpus: str
) -> list[Failure]:
    """Return which test utterances a codec could not encode, with the reason.

    Args:
        coded: ids of the test utterances of each codec.
        common: the chosen ids, which all have.
        corpus: the test corpus.
    """
    last = max(ids.index(common[-1]) for ids in coded)
    wanted = dict.fromkeys(i for ids in coded for i in ids[: last + 1])
    missing = [(codec, i) for codec, ids in zip(codecs, coded, strict=True)
               for i in wanted if i not in ids]  # fmt: skip
    if not missing:
        return []
    opened = held_out_clips(corpus, [i for _, i in missing])
    entries = {entry.id: entry for entry in opened.entries}
    found = []
    for codec, i in missing:
        reason = "its tokens are missing"
        try:
            clip = opened.load(entries[i], codec.spec.sample_rate)
            codec.encode_with_side(clip.waveform[None])
        except (AudioError, OutOfReach) as error:
            reason = error.reason if isinstance(error, AudioError) else str(error)
        found.append(Failure(i, f"{codec.spec.name} resynthesis", "codes", reason))
    return found


def lost_notes(lost: Sequence[Failure]) -> list[str]:
    """Say how many test utterances are in no row."""
    n = len({failure.clip for failure in lost})
    clips = "1 test utterance is" if n == 1 else f"{n} test utterances are"
    return [f"{clips} in no row: a codec could not encode it"] if n else []


def _named(codec: Codec) -> Codec:
    """Return a codec whose name has its level or bitrate, if it has one."""
    name = name_of(codec)
    if name != codec.spec.name:
        codec = copy.copy(codec)
        codec.spec = replace(codec.spec, name=name)
    return codec
