"""From a name to a codec: `list_codecs()`, `load_codec()` and `load_roundtrip()`.

A zoo is a folder of codec folders, each one that its library's `from_pretrained` loads as it
is, with a `codec.toml` beside: library, class, licence, summary. A name is looked up in
`$TOKGEN_ZOO`, in `codecs/` of a checkout, in the copy inside an installed wheel, then taken as
a folder, then as a hub id. A suffix ":6" asks for 6 kbps of a codec that has several bitrates;
"mp3:24" and "opus:12" are waveform codecs, which `load_roundtrip` knows beside the others.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import tokgen
from tokgen.codec.base import Codec, WaveformCodec
from tokgen.codec.spec import CodecSpec
from tokgen.nn.pretrained import CONFIG, folder_name, resolve_folder
from tokgen.zoo.registry import ADAPTERS, Adapter

CARD = "codec.toml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WITH_KBPS = re.compile(r"(.+):([0-9]+(?:\.[0-9]+)?)")
_WAVEFORM = ("mp3", "opus")


@dataclass(frozen=True)
class CodecCard:
    """What a zoo says of a codec, without its weights.

    Attributes:
        spec: its numbers; `weight_hash` is empty until the codec is loaded.
    """

    name: str
    folder: Path
    spec: CodecSpec
    class_name: str
    summary: str


def zoo_folders() -> list[Path]:
    """The zoos that exist, in the order of lookup."""
    package = Path(tokgen.__file__).parent
    places = [package / "_codecs"]
    if (package.parent / "pyproject.toml").is_file():
        places.insert(0, package.parent / "codecs")
    if os.environ.get("TOKGEN_ZOO"):
        places.insert(0, Path(os.environ["TOKGEN_ZOO"]))
    return [place for place in places if place.is_dir()]


def find_in_zoo(name: str) -> Path | None:
    """The folder of a zoo codec, a bitrate behind its name or not; None for any other name,
    paths included.
    """
    name = str(_split(name)[0])
    if not _NAME.fullmatch(name):
        return None
    for zoo in zoo_folders():
        if (zoo / name / CONFIG).is_file():
            return zoo / name
    return None


def list_codecs() -> list[CodecCard]:
    """Every codec of the zoos by name; one that hides another of its name stands for it.

    A folder that cannot be read is left out with a warning.
    """
    names = {f.name for zoo in zoo_folders() for f in zoo.iterdir() if f.is_dir()}
    cards = []
    for name in sorted(names):
        folder = find_in_zoo(name)
        if folder is None:
            continue
        try:
            cards.append(read_card(folder))
        except ValueError as error:
            warnings.warn(f"left out of the zoo: {error}", stacklevel=2)
    return cards


def read_card(folder: Path) -> CodecCard:
    """What codec.toml and config.json of a folder say.

    Raises:
        ValueError: one of them cannot be read, or no adapter loads what it names.
    """
    adapter, card, config = _identify(folder)
    try:
        numbers = adapter.codec_class().numbers(config)
        spec = CodecSpec(
            folder.name, **numbers, library=adapter.library, licence=card.get("licence", "")
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / CONFIG}: a setting is missing or wrong: {error}") from error
    return CodecCard(folder.name, folder, spec, adapter.class_name, card.get("summary", ""))


def load_codec(
    name: str | Path,
    *,
    bandwidth: float | None = None,
    revision: str | None = None,
    device: str | torch.device = "cpu",
) -> Codec:
    """Load a codec with its weights.

    Args:
        name: of a zoo codec (see `list_codecs`), a folder, or a hub id ("owner/name"); each with
            ":6" after it for 6 kbps.
        bandwidth: kbps of a codec that has several bitrates; None takes the name's suffix, or
            the highest.
        revision: of a hub id: branch, tag or commit.
        device: where it runs.
    Raises:
        FileNotFoundError: nothing of that name; the message lists the names known.
        ValueError: found, but no codec that tokgen can run, or damaged; a bandwidth that it does
            not have; or a waveform codec.
    """
    if _waveform_kind(name):
        raise ValueError(
            f"{name} has no codes: it gives audio for audio (`tokgen drift` takes it, and "
            "load_roundtrip); give a codec with codes"
        )
    plain, suffix = _split(name)
    if bandwidth is not None and suffix is not None:
        raise ValueError(f"{name}: bandwidth = {bandwidth:g} is given too; leave one of them out")
    bandwidth = suffix if bandwidth is None else bandwidth
    folder, label, commit = _locate(plain, revision)
    adapter, card, _ = _identify(folder)
    options = {}
    if bandwidth is not None:
        if not adapter.bandwidths:
            raise ValueError(
                f"{label}: {adapter.class_name} has one bitrate; leave out {bandwidth:g} kbps"
            )
        label, options = f"{label}:{bandwidth:g}", {"bandwidth": bandwidth}
    codec = adapter.codec_class().from_pretrained(
        folder, name=label, revision=commit, licence=card.get("licence", ""), **options
    )
    is_folder = Path(plain).is_dir() and find_in_zoo(str(plain)) is None
    where = str(Path(plain).resolve()) if is_folder else str(plain)
    codec.loaded_from = where + ("" if bandwidth is None else f":{bandwidth:g}"), commit
    return codec.to(device)


def load_roundtrip(
    name: str | Path, *, device: str | torch.device = "cpu"
) -> Codec | WaveformCodec:
    """Load anything with `roundtrip`: what `load_codec` takes, "mp3:24", "opus:12".

    Raises:
        FileNotFoundError, ValueError: as `load_codec`; or a bitrate that the format does not have.
    """
    kind = _waveform_kind(name)
    if kind is None:
        return load_codec(name, device=device)
    from tokgen.zoo.adapters.ffmpeg import FfmpegCodec

    plain, kbps = _split(name)
    if kbps is None or plain != kind:
        raise ValueError(f"{name}: add a bitrate in kbps, {kind}:24 say")
    return FfmpegCodec(kind, kbps)


def _waveform_kind(name: str | Path) -> str | None:
    """ "mp3" or "opus" where the name is theirs and no folder's."""
    kind = str(name).partition(":")[0]
    return kind if kind in _WAVEFORM and not Path(name).is_dir() else None


def _split(name: str | Path) -> tuple[str | Path, float | None]:
    """A name without its suffix of kbps, and that; a folder of the name goes before."""
    found = _WITH_KBPS.fullmatch(str(name))
    if found is None or Path(name).is_dir():
        return name, None
    return found[1], float(found[2])


def _locate(name: str | Path, revision: str | None) -> tuple[Path, str, str | None]:
    """Folder, the name to go by, and the commit where it comes from the hub."""
    folder = find_in_zoo(name) if isinstance(name, str) else None
    label = str(name)
    if folder is None and Path(name).is_dir():
        folder = resolve_folder(name)
        label = folder_name(folder)
    if folder is not None:
        if revision is not None:
            raise ValueError(f"revision {revision!r}: {folder} is a folder; only hub ids have any")
        return folder, label, None
    known = ", ".join(card.name for card in list_codecs()) or "none"
    if not _HUB_ID.fullmatch(label):
        raise FileNotFoundError(f"no codec {label!r}; known: {known}; or give a folder or a hub id")
    try:
        folder = resolve_folder(label, revision)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no codec {label!r}: {error}; known: {known}") from error
    in_cache = folder.parent.name == "snapshots"  # whose folders are named by commit
    return folder, label, folder.name if in_cache else revision


def _identify(folder: Path) -> tuple[Adapter, dict[str, str], dict[str, Any]]:
    """The adapter for a folder, its codec.toml and its config.json."""
    card = _read_toml(folder / CARD) if (folder / CARD).is_file() else {}
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{folder / CONFIG}: holds a {type(config).__name__}, not settings")
    for adapter in ADAPTERS:
        if card and (card["library"], card["class"]) == (adapter.library, adapter.class_name):
            return adapter, card, config
        if not card and config.get("model_type") == adapter.model_type:
            return adapter, card, config
    what = f"{card['library']}'s {card['class']}" if card else repr(config.get("model_type"))
    known = ", ".join(f"{w.library}'s {w.class_name}" for w in ADAPTERS)
    raise ValueError(f"{folder} holds {what}, which tokgen cannot run; it runs {known}")


def _read_toml(path: Path) -> dict[str, str]:
    try:
        card = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    for key in ("library", "class", "licence", "summary"):
        if not isinstance(card.get(key), str):
            raise ValueError(f"{path}: {key} = {card.get(key)!r}: give a string")
    return card
