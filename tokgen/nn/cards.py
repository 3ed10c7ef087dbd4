"""Model cards: the README.md beside a model's weights, with metadata for the Hugging Face hub."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = [
    "CARD",
    "MARK",
    "Estimates",
    "ModelCardFacts",
    "change_weights",
    "is_written_by_hand",
    "keep_card",
    "read_card_text",
    "read_licence",
    "read_metadata",
    "write_card",
]

CARD = "README.md"
MARK = "<!-- Written by tokgen. It is replaced with the weights; delete this line to keep it. -->"
_WEIGHTS_ROW = re.compile(r"^(\| weights \| `)[0-9a-f]{64}(` \|)$", re.MULTILINE)
Estimates = Mapping[str, Mapping[str, Any]]  # metric: mean, low, high, n, n_failed, backend


@dataclass(frozen=True)
class ModelCardFacts:
    """Facts for a model's card that the model itself does not hold. Unknown ones are left out.

    Attributes:
        corpus: name of the training data.
        fingerprint: SHA-256 of the training data.
        hours: hours of training data.
        base: name of the model that the training started from.
        settings: settings of the training.
        command: command or Python call that made the model.
        scores: {row: {metric: estimate}}, as `Table.rows_as_dict()`. The metadata has the last row
            that is not "original".
        scored_on: what the scores were measured on.
        licence: licence of the weights.
        summary: one line that `tokgen codecs` prints.
        language: ISO codes.
    """

    corpus: str = ""
    fingerprint: str = ""
    hours: float | None = None
    base: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    scores: Mapping[str, Estimates] = field(default_factory=dict)
    scored_on: str = ""
    licence: str = ""
    summary: str = ""
    language: Sequence[str] = ()


def write_card(
    folder: Path,
    name: str,
    about: Mapping[str, str],
    example: str,
    facts: ModelCardFacts,
    *,
    task: str = "audio-to-audio",
    library: str = "tokgen",
    tags: Sequence[str] = (),
) -> None:
    """Write README.md, unless there is one that tokgen did not write.

    Args:
        name: title of the card.
        about: table of the model's own numbers.
        example: Python code that uses the model.
        task: task on the hub.
        library: library that runs the network.
        tags: tags on the hub, besides those of every model.
    """
    from huggingface_hub import ModelCard, ModelCardData

    if is_written_by_hand(folder / CARD):
        return
    given: dict[str, Any] = {
        "license": facts.licence.lower() or None,
        "language": list(facts.language) or None,
        "summary": facts.summary or None,
    }
    data = ModelCardData(
        library_name=library,
        pipeline_tag=task,
        tags=["audio", *tags],
        model_name=name,
        eval_results=_results(facts, task) or None,
        **{key: value for key, value in given.items() if value},
    )
    text = "\n\n".join([MARK, f"# {name}", *_sections(about, example, facts)])
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n").save(folder / CARD)


def keep_card(folder: Path, text: str) -> None:
    """Write the README.md that a model was loaded with, unless the folder has another."""
    if not is_written_by_hand(folder / CARD):
        (folder / CARD).write_text(text, encoding="utf-8")


def change_weights(folder: Path, before: str, now: str) -> None:
    """State another hash of the weights in README.md. Warn if it was written by hand.

    Args:
        folder: of the model.
        before: the hash of its weights until now.
        now: the hash of those that it has.
    """
    text = read_card_text(folder) or ""
    if is_written_by_hand(folder / CARD):
        if before in text and before != now:
            warnings.warn(
                f"{folder / CARD} was written by hand and states the hash {before} of the weights: "
                f"change it to {now}",
                stacklevel=3,
            )
    elif text:
        (folder / CARD).write_text(_WEIGHTS_ROW.sub(rf"\g<1>{now}\g<2>", text), encoding="utf-8")


def is_written_by_hand(path: Path) -> bool:
    """Return whether a card exists without tokgen's mark."""
    return path.is_file() and MARK not in path.read_text(encoding="utf-8", errors="replace")


def read_card_text(folder: Path) -> str | None:
    """Return the README.md of a folder; None if it has none."""
    path = folder / CARD
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def read_metadata(folder: Path) -> dict[str, Any]:
    """Return the metadata at the top of a card; {} without any. Warn if it cannot be read."""
    import yaml

    found = re.match(r"\s*---\r?\n(.*?)\n---", read_card_text(folder) or "", re.DOTALL)
    try:
        metadata = yaml.safe_load(found[1]) if found else {}
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        warnings.warn(f"{folder / CARD}: metadata cannot be read: {error}", stacklevel=2)
        return {}
    return metadata if isinstance(metadata, dict) else {}


def read_licence(metadata: Mapping[str, Any]) -> str:
    """Return the licence in a card's metadata as SPDX spells it; "" if there is none."""
    licence = metadata.get("license")
    if licence == "other":
        licence = metadata.get("license_name")
        return licence if isinstance(licence, str) else ""
    if not isinstance(licence, str) or licence == "unknown":
        return ""
    return licence.upper().replace("APACHE", "Apache")


def _sections(about: Mapping[str, str], example: str, facts: ModelCardFacts) -> list[str]:
    parts = [_table(about), f"```python\n{example.strip()}\n```"]
    hours = "" if facts.hours is None else f"{facts.hours:.2f} h"
    data = {"corpus": _code(facts.corpus), "hours": hours, "fingerprint": _code(facts.fingerprint)}
    data = {"started from": _code(facts.base), **data}
    if any(data.values()):
        parts += ["## Data", _table({key: value for key, value in data.items() if value})]
    if not facts.licence:
        parts.append(
            "No licence is stated here. Training data and codec have licences of their own: check "
            "them and add `license` to the metadata before you share the weights."
        )
    if facts.settings or facts.command:
        parts.append("## Training")
    if facts.command:
        language = "python" if facts.command.startswith("tokgen.") else "sh"
        parts.append(f"```{language}\n{facts.command}\n```")
    if facts.settings:
        flat = _flatten(facts.settings)
        parts.append(_table({f"`{key}`": _code(str(value)) for key, value in flat.items()}))
    if facts.scores:
        where = f" on {facts.scored_on}" if facts.scored_on else ""
        parts += ["## Scores", f"Means with 95 % bootstrap intervals{where}."]
        parts.append(_score_table(facts.scores))
    return parts


def _score_table(scores: Mapping[str, Estimates]) -> str:
    metrics = list(dict.fromkeys(metric for row in scores.values() for metric in row))
    backends = {
        metric: next(str(r[metric].get("backend") or "") for r in scores.values() if metric in r)
        for metric in metrics
    }
    heads = [f"{m} ({backends[m]})" if backends[m] else m for m in metrics]
    lines = ["| row | " + " | ".join(map(_cell, heads)) + " |", "|---" * (len(heads) + 1) + "|"]
    for name, row in scores.items():
        cells = [_estimate(row[metric]) if metric in row else "" for metric in metrics]
        lines.append(f"| {_cell(name)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _estimate(value: Mapping[str, Any]) -> str:
    if value.get("mean") is None:
        return f"– (n = 0, {value['n_failed']} failed)" if value.get("n_failed") else "–"
    low, high = value.get("low"), value.get("high")
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    failed = f", {value['n_failed']} failed" if value.get("n_failed") else ""
    return f"{value['mean']:.3f}{interval} (n = {value.get('n')}{failed})"


def _results(facts: ModelCardFacts, task: str) -> list[Any]:
    """Return the scores as the hub's metadata lists them."""
    from huggingface_hub import EvalResult

    rows = [row for row in facts.scores if row != "original"]
    chosen = "generated" if "generated" in rows else (rows or [""])[-1]
    corpus = facts.corpus or "unknown"
    return [
        EvalResult(
            task_type=task,
            dataset_type=re.sub(r"[^\w./-]+", "-", corpus),
            dataset_name=facts.scored_on or corpus,
            metric_type=metric,
            metric_name=f"{metric} of {chosen}, n = {value.get('n')}",
            metric_value=value["mean"],
        )
        for metric, value in facts.scores.get(chosen, {}).items()
        if value.get("mean") is not None
    ]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {rows[key]} |" for key in rows)])


def _code(text: str) -> str:
    return f"`{_cell(text).replace('`', ' ')}`" if text else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")
