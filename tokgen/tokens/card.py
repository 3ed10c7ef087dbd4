"""The dataset card (README.md) of a dataset, for the Hugging Face hub and for people.

Its `configs:` name the Parquet files of each split, so that `datasets.load_dataset` opens the
folder, on this machine or on the hub.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING

from tokgen.codec.spec import CodecSpec
from tokgen.tokens.provenance import PROVENANCE, Provenance, describe_rate, side_column
from tokgen.tokens.rates import DepthTotals, depths_of_splits

if TYPE_CHECKING:
    from datasets import DatasetDict
    from huggingface_hub import DatasetCard

__all__ = ["CARD", "UNKNOWN", "push_card", "write_card"]

CARD = "README.md"
UNKNOWN = "unknown"  # license
_MARK = "<!-- written by tokgen: a new upload replaces this text if the mark is kept -->"


def write_card(
    provenance: Provenance,
    sizes: Mapping[str, tuple[int, float]],
    *,
    n_rejected: int | None = None,
    packed: bool = False,
    depth: DepthTotals | None = None,
    location: str = "folder or hub id",
    license: str = UNKNOWN,
) -> str:
    """Return the text of a dataset card.

    Args:
        provenance: of the dataset.
        sizes: rows and seconds of each split.
        n_rejected: number of the corpus' entries that were left out; None if it is not known.
        packed: whether the codes are packed bytes.
        depth: of all rows, if they have a variable bitrate.
        location: what to open, in the examples.
        license: of the dataset, an identifier of the hub.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    files = [{"split": split, "path": f"data/{split}-*"} for split in sizes]
    codec, corpus = provenance.codec_spec.name, provenance.corpus
    kind = provenance.content
    content = f"{provenance.to_json()} {sorted(sizes.items())}{' packed' * packed}"
    # `load_dataset` caches a local folder by its name and this metadata, not by its files.
    description = f"content {sha256(content.encode()).hexdigest()[:16]}"
    data = DatasetCardData(
        license=license,
        pretty_name=f"{corpus}, {kind} of {codec}",
        task_categories=["audio-to-audio"],
        tags=["tokgen", "audio", f"codec-{kind}", codec],
        configs=[{"config_name": "default", "description": description, "data_files": files}],
    )
    text = _text(provenance, sizes, n_rejected, packed, depth, location)
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{text}"))


def push_card(
    splits: DatasetDict,
    provenance: Provenance,
    repo_id: str,
    *,
    license: str,
    revision: str | None,
    token: str | None,
) -> str:
    """Upload the card and provenance.json of a dataset that is on the hub.

    The card's metadata on the hub is kept and completed. Its text is replaced only if tokgen
    wrote it, or if it is empty.

    Returns:
        URL of the dataset.
    """
    from huggingface_hub import CommitOperationAdd, DatasetCard, HfApi, hf_hub_download

    sizes = {
        split: (len(part), sum(part.data["n_samples"].to_pylist()) / provenance.sample_rate)
        for split, part in splits.items()
    }
    depth = None
    if provenance.rate is not None:
        depth = DepthTotals.of(depths_of_splits(splits.values()), provenance.spec)
    card = write_card(provenance, sizes, depth=depth, location=repo_id, license=license)
    ours = DatasetCard(card)
    path = hf_hub_download(repo_id, CARD, repo_type="dataset", revision=revision, token=token)
    card = DatasetCard.load(path, ignore_metadata_errors=True)
    _complete(card, ours)
    files = {CARD: str(card), PROVENANCE: provenance.to_json(indent=2) + "\n"}
    commit = HfApi(token=token).create_commit(
        repo_id,
        [CommitOperationAdd(name, text.encode()) for name, text in files.items()],
        commit_message="Describe the token dataset",
        repo_type="dataset",
        revision=revision,
    )
    return str(commit.repo_url)


def _complete(card: DatasetCard, ours: DatasetCard) -> None:
    """Add what a card lacks."""
    if not card.text.strip() or _MARK in card.text:
        card.text = ours.text
    data, new = card.data, ours.data
    data["tags"] = list(dict.fromkeys([*(data.get("tags") or []), *new["tags"]]))
    for name in ("license", "pretty_name", "task_categories"):
        if data.get(name) is None or (name == "license" and new[name] != UNKNOWN):
            data[name] = new[name]


def _text(
    provenance: Provenance,
    sizes: Mapping[str, tuple[int, float]],
    n_rejected: int | None,
    packed: bool,
    depth: DepthTotals | None,
    location: str,
) -> str:
    spec = provenance.codec_spec
    n_rows, seconds = (sum(values) for values in zip(*sizes.values(), strict=True))
    rows = "\n".join(f"| `{s}` | {n} | {t / 3600:.2f} |" for s, (n, t) in sizes.items())
    rejected = "" if n_rejected is None else f"\n\n{n_rejected} entries of the corpus were rejected"
    if n_rejected:
        rejected += "; `rejections.jsonl` names each with a reason"
    rejected += "." * (n_rejected is not None)
    conditioning = next(iter(provenance.conditioning_sizes), None)
    encoder = f", encoder's `{spec.encoder_hash}`" if spec.encoder_hash else ""
    facts = {
        "codec": _code(spec.name) + (f", revision {_code(spec.revision)}" if spec.revision else ""),
        "weights": f"SHA-256 `{spec.weight_hash}`{encoder}, licence "
        f"{_code(spec.licence or 'not stated')}",
        "sample rate": f"{provenance.sample_rate} Hz",
        "frames": f"{spec.frame_rate:g} a second, {provenance.hop_length} samples each",
        **_values(provenance),
        "conditioning": _code(conditioning or "none"),
        "precision": f"the codec ran in {_code(provenance.precision)}",
        "corpus": f"{_code(provenance.corpus)}, fingerprint `{provenance.corpus_fingerprint}`",
    }
    shape = f"[T, {provenance.width}], time first"
    if depth is not None:
        kbps = depth.kbps(provenance.spec)
        facts |= {
            "variable bitrate": describe_rate(provenance.rate),
            "bitrate": f"{kbps:.2f} kbps on average, with the bits of the depth",
            "depth": f"{depth.mean_depth:.2f} levels per frame on average",
        }
        shape = f"[T, 1 to {provenance.n_codebooks}], time first, as many as a frame has levels"
    listed = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    columns = {
        "id": "name of the utterance",
        provenance.column: f"{'float16' if provenance.latent_dim else 'uint16'} {shape}"
        + ", as packed bits that `load_tokens` unpacks" * packed,
        "n_samples": "length of the audio in samples",
        "text": "transcript, or null",
        "speaker": "name of the speaker, or null",
    }
    for name, size in provenance.conditioning_sizes.items():
        columns[name] = f"float16 [T, {size}], one vector per frame"
    for name in provenance.side_names:
        columns[side_column(name)] = "float32, side information that decoding needs"
    described = "\n".join(f"| `{name}` | {meaning} |" for name, meaning in columns.items())
    split = next(iter(sizes))
    kind = provenance.content
    utterances = f"{n_rows} utterance{'s' * (n_rows != 1)}"
    return f"""{_MARK}

# {kind.capitalize()} of a neural audio codec

{utterances}, {seconds / 3600:.2f} h of audio, as {kind} of the codec {_code(spec.name)}.

| split | utterances | hours |
|---|---|---|
{rows}{rejected}

## Use

```python
import tokgen

{_example(provenance, split, location)}
```

`datasets.load_dataset({location!r})` opens the rows too. The features carry the codec and the
settings: `tokgen.tokens.provenance.provenance_of(dataset)` returns them.

| column | content |
|---|---|
{described}

## Origin

Made by tokgen {_code(provenance.tokgen_version)}:

```
{_command(provenance, packed)}
```

| | |
|---|---|
{listed}
"""


def _values(provenance: Provenance) -> dict[str, str]:
    """Return what the frames hold, by name."""
    if provenance.latent_dim:
        return {"latents": f"{provenance.latent_dim} per frame, rounded to float16"}
    return {
        "levels": f"{provenance.n_codebooks} of {provenance.spec.n_codebooks}, coarse first",
        "codebook size": f"{provenance.codebook_size} entries per level",
    }


def _example(provenance: Provenance, split: str, location: str) -> str:
    """Return Python code that opens a dataset."""
    codec = provenance.codec_spec.name
    if provenance.latent_dim:
        return f"""latents = tokgen.load_latents({location!r})
codec = tokgen.load_continuous({codec!r})
frames = latents.latents({split!r}, 0)           # [1, {provenance.latent_dim}, T]
waveform = latents.decode(codec, {split!r}, 0)   # [1, 1, N]"""
    return f"""tokens = tokgen.load_tokens({location!r})
codec = tokgen.load_codec({codec!r})
codes = tokens.codes({split!r}, 0)              # [1, K, T]
waveform = tokens.decode(codec, {split!r}, 0)   # [1, 1, N]"""


def _command(provenance: Provenance, packed: bool) -> str:
    """Return the command that makes the dataset."""
    spec, conditioning = provenance.codec_spec, next(iter(provenance.conditioning_sizes), None)
    command = f"tokgen tokenize --corpus {_word(provenance.corpus)} --codec {_word(spec.name)}"
    if isinstance(spec, CodecSpec) and provenance.n_codebooks < spec.n_codebooks:
        command += f" --n_codebooks {provenance.n_codebooks}"
    rate = provenance.rate
    if rate is not None and rate.bitrate is None:
        command += f" --level {rate.level:g}"
    elif rate is not None and not spec.name.endswith(f":{rate.bitrate:g}"):
        command += f" --bitrate {rate.bitrate:g}"
    if provenance.beam > 1:
        command += f" --beam {provenance.beam}"
    if conditioning != "mfcc":
        command += f" --conditioning {conditioning or 'none'}"
    if provenance.precision != "float32":
        command += f" --precision {_word(provenance.precision)}"
    if packed:
        command += " --codes packed"
    return f"{command} --out {provenance.content}"


def _code(text: str) -> str:
    """Format a name as code in one cell of a table."""
    plain = " ".join(text.split()).replace("`", "'").replace("|", "/")
    return f"`{plain}`"


def _word(text: str) -> str:
    """Format a name as one word of a command."""
    return shlex.quote(" ".join(text.replace("`", "").split()))
