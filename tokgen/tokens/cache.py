"""Keep the token and latent datasets of a recipe in a folder; no corpus is encoded twice."""

from __future__ import annotations

import glob
import re
import warnings
from pathlib import Path

from tokgen.codec.base import Codec
from tokgen.codec.continuous import ContinuousCodec, ContinuousSpec
from tokgen.codec.spec import CodecSpec
from tokgen.corpus.listed import Corpus
from tokgen.tokens.dataset import TokenDataset, load_tokens
from tokgen.tokens.latents import LatentDataset, load_latents
from tokgen.tokens.provenance import describe_rate
from tokgen.tokens.tokenizing import tokenize_corpus

__all__ = ["cached_latents", "cached_tokens"]


def cached_tokens(
    corpus: Corpus,
    codec: Codec,
    cache: Path,
    *,
    conditioning: str | None = "mfcc",
    progress: bool = True,
) -> TokenDataset:
    """Return the token dataset of a corpus from a cache; `tokenize_corpus` makes it if needed.

    Datasets in the folder `cache` are named by codec, hash of its encoder and corpus content. The
    name of the codec does not count: codecs of which only the decoder differs share a dataset.
    """
    kind = ""
    if codec.search is not None:
        kind += f"-{codec.search.distance}-{codec.search.beam}"
    if codec.rate is not None:
        kind += f"-{describe_rate(codec.rate).replace(' ', '')}"
    return load_tokens(_made(corpus, codec, cache, conditioning, kind, progress))


def cached_latents(
    corpus: Corpus,
    codec: ContinuousCodec,
    cache: Path,
    *,
    conditioning: str | None = None,
    progress: bool = True,
) -> LatentDataset:
    """Return the latent dataset of a corpus from a cache, as `cached_tokens` returns tokens."""
    return load_latents(_made(corpus, codec, cache, conditioning, "", progress))


def _made(
    corpus: Corpus,
    codec: Codec | ContinuousCodec,
    cache: Path,
    conditioning: str | None,
    kind: str,
    progress: bool,
) -> Path:
    """Return the folder of a corpus' dataset in a cache; `kind` ends its name."""
    kind = ("" if conditioning == "mfcc" else f"-{conditioning or 'plain'}") + kind
    out = _place(codec.spec, Path(cache), f"{corpus.fingerprint[:12]}{kind}")
    report = tokenize_corpus(
        corpus,
        codec,
        out,
        conditioning=conditioning,
        precision="float32",
        format="arrow",
        progress=progress,
    )
    for rejection in report.rejections:
        warnings.warn(f"left out {rejection}", stacklevel=3)
    return out


def _place(spec: CodecSpec | ContinuousSpec, cache: Path, ending: str) -> Path:
    """Return the folder of a dataset: one that is there, or a new one."""
    safe = re.sub(r"[^\w.-]", "_", spec.name)
    former = cache / f"{safe}-{spec.weight_hash[:12]}-{ending}"  # of older versions
    encoder = (spec.encoder_hash or spec.weight_hash)[:12]
    levels = f"{spec.n_codebooks}-" if isinstance(spec, CodecSpec) else ""
    same = cache.glob(f"*-{encoder}-{levels}{glob.escape(ending)}") if encoder else ()
    found = [former] if former.is_dir() else sorted(same)
    return found[0] if found else cache / f"{safe}-{encoder}-{levels}{ending}"
