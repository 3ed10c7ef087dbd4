"""Find the folder of a codec by name, and the class that loads it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokgen.codec.continuous import ContinuousCodec
from tokgen.nn.cards import read_licence, read_metadata
from tokgen.nn.files import read_json, shorten
from tokgen.nn.hub import CONFIG, commit_of, resolve_folder
from tokgen.nn.pretrained import folder_name
from tokgen.zoo.names import find_in_zoo, is_hub_id, unknown_codec
from tokgen.zoo.registry import ADAPTERS, CONTINUOUS, PUBLISHED, Adapter

__all__ = ["OLD_CARD", "FoundCodec", "find_codec", "identify", "load_found"]

OLD_CARD = "codec.toml"


@dataclass(frozen=True)
class FoundCodec:
    """A codec folder that was found by name.

    Attributes:
        folder: folder with config.json, or with the files that the codec's authors publish.
        name: name for the codec's spec.
        commit: commit or revision, if it comes from the hub.
        source: name that finds it again; None if it was found with other arguments.
        adapter: kind of codec.
        card: its "licence" and "summary".
        config: its config.json, or what stands in its place.
    """

    folder: Path
    name: str
    commit: str | None
    source: str | None
    adapter: Adapter
    card: dict[str, str]
    config: dict[str, Any]

    @property
    def continuous(self) -> bool:
        """True for a codec without a quantizer."""
        return self.adapter in CONTINUOUS


def find_codec(
    name: str | Path,
    revision: str | None = None,
    subfolder: str = "",
    hub: dict[str, Any] | None = None,
) -> FoundCodec:
    """Find the folder of a codec, and which class loads it.

    Args:
        name: as for `load_codec`, without a bitrate suffix.
        revision, subfolder: as for `load_codec`.
        hub: token, cache_dir and local_files_only of `load_codec`.
    Raises:
        FileNotFoundError: no codec of this name; the message lists the known names.
        ValueError: a file cannot be read, or tokgen cannot run this kind of codec.
    """
    hub = hub or {}
    folder, label, commit = _locate(name, revision, subfolder, hub)
    source = None
    if not subfolder and not any(hub.values()):
        is_folder = Path(name).is_dir() and find_in_zoo(str(name)) is None
        source = str(Path(name).resolve()) if is_folder else str(name)
    return FoundCodec(folder, label, commit, source, *identify(folder))


def load_found(found: FoundCodec, kbps: float | None = None) -> ContinuousCodec:
    """Load a continuous codec that `find_codec` found.

    Raises:
        ValueError: as `load_continuous`, or `kbps` is given, which is the suffix of its name.
    """
    if kbps is not None:
        raise ValueError(
            f"{found.name}:{kbps:g}: a continuous codec has no bitrates to choose from; leave out "
            f"':{kbps:g}'"
        )
    codec: ContinuousCodec = found.adapter.codec_class().from_pretrained(
        found.folder, name=found.name, revision=found.commit, licence=found.card["licence"]
    )
    if found.source is not None:
        codec.loaded_from = found.source, found.commit
    return codec


def _locate(
    name: str | Path, revision: str | None, subfolder: str, hub: dict[str, Any]
) -> tuple[Path, str, str | None]:
    """Return the folder, the codec's name, and the commit if it comes from the hub."""
    folder = find_in_zoo(name) if isinstance(name, str) else None
    label = str(name)
    if folder is not None and subfolder:
        folder = resolve_folder(folder, subfolder=subfolder, published=PUBLISHED)
    if folder is None and Path(name).is_dir():
        folder = resolve_folder(name, subfolder=subfolder, published=PUBLISHED)
        label = folder_name(folder)
    if folder is not None:
        if revision is not None:
            raise ValueError(f"revision {revision!r}: only hub ids have revisions, not {folder}")
        return folder, label, None
    if not is_hub_id(label):
        raise unknown_codec(label)
    try:
        folder = resolve_folder(label, revision, subfolder=subfolder, published=PUBLISHED, **hub)
    except FileNotFoundError as error:
        raise unknown_codec(label, str(error)) from error
    label = f"{label}/{subfolder}" if subfolder else label
    return folder, label, commit_of(folder) or revision


def identify(folder: Path) -> tuple[Adapter, dict[str, str], dict[str, Any]]:
    """Return the adapter for a folder, its licence and summary, and its config.json.

    For a folder as a codec's authors publish it, settings are made in place of config.json.
    """
    path = folder / CONFIG
    config = read_json(path) if path.is_file() else {}
    for adapter in ADAPTERS + CONTINUOUS:
        if config.get("model_type") in (adapter.model_type, *adapter.older_types):
            return adapter, _read_card(folder), config
    names = [each.name for each in folder.iterdir() if each.is_file()]
    for adapter in ADAPTERS:
        if any(form.matches(names, config) for form in adapter.published):
            return adapter, _read_card(folder), adapter.codec_class().read_published(folder)
    if not path.is_file():
        forms = [" and ".join(f.files) for a in ADAPTERS for f in a.published if not f.settings]
        raise ValueError(
            f"{folder} has no {CONFIG}, and not all files of a codec that tokgen loads as it is "
            f"published: {', '.join(forms)}"
        )
    known = ", ".join(f"{a.library}'s {a.class_name}" for a in ADAPTERS + CONTINUOUS)
    found = config.get("model_type")
    raise ValueError(f"{folder} holds {shorten(found)}, which tokgen cannot run; it runs {known}")


def _read_card(folder: Path) -> dict[str, str]:
    """Return "licence" and "summary" of a folder; "" for what it does not say."""
    metadata = read_metadata(folder)
    summary = metadata.get("summary")
    card = {
        "licence": read_licence(metadata),
        "summary": summary if isinstance(summary, str) else "",
    }
    path = folder / OLD_CARD
    if not path.is_file():
        return card
    try:
        old = tomllib.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return {key: value or str(old.get(key, "")) for key, value in card.items()}
