"""Find and load codecs by name: `list_codecs()`, `load_codec()` and `load_roundtrip()`.

A zoo is a folder of codec folders. Each codec folder can be loaded by `from_pretrained` of its
library. `license` and `summary` are in the metadata of its README.md, or in a codec.toml in folders
of older versions. A name is looked up in `$TOKGEN_ZOO`, in `codecs/` of a checkout, in the copy
inside an installed wheel, then as a folder, then as a hub id. A suffix such as ":6" selects 6 kbps
of a codec that has several bitrates.
"mp3:24" and "opus:12" are waveform codecs, which only `load_roundtrip` loads.
"""

from __future__ import annotations

import tomllib
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch

from tokgen.codec.base import Codec, WaveformCodec
from tokgen.nn.cards import read_licence, read_metadata
from tokgen.nn.files import read_json, shorten
from tokgen.nn.hub import CONFIG, commit_of, resolve_folder
from tokgen.nn.pretrained import folder_name
from tokgen.runs.device import pick_device
from tokgen.zoo.cards import CodecCard, CodecList
from tokgen.zoo.folders import zoo_folders
from tokgen.zoo.names import (
    check_name,
    find_in_zoo,
    is_hub_id,
    split_kbps,
    unknown_codec,
    waveform_kind,
)
from tokgen.zoo.registry import ADAPTERS, Adapter

__all__ = [
    "OLD_CARD",
    "as_codec",
    "as_roundtrip",
    "list_codecs",
    "load_codec",
    "load_roundtrip",
    "read_card",
]

OLD_CARD = "codec.toml"


def list_codecs() -> CodecList:
    """Return the codecs of all zoos, sorted by name.

    If several zoos have a codec of the same name, the first zoo wins. A folder that cannot be read
    is left out with a warning.
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
    places = ", ".join(str(zoo) for zoo in zoo_folders()) or "no folder"
    return CodecList(cards, f"no codecs in {places}: set TOKGEN_ZOO, or name a folder or a hub id")


def read_card(folder: Path) -> CodecCard:
    """Read config.json and the card's metadata of a codec folder.

    Raises:
        ValueError: a file cannot be read, or tokgen cannot run this kind of codec.
    """
    adapter, card, config = _identify(folder)
    try:
        about = {"library": adapter.library, "licence": card["licence"]}
        spec = adapter.codec_class().read_spec(folder.name, config, **about)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG}: a setting is missing or wrong: {error}") from error
    return CodecCard(folder.name, folder, spec, adapter.class_name, card["summary"])


def load_codec(
    name: str | Path,
    *,
    bandwidth: float | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    subfolder: str = "",
    device: str | torch.device = "cpu",
) -> Codec:
    """Load a codec with its weights.

    Args:
        name: a zoo codec (see `list_codecs`), a folder, or a hub id ("owner/name"), optionally
            with a suffix such as ":6" for 6 kbps.
        bandwidth: kbps, for a codec that has several bitrates; None means the suffix, or the
            highest.
        revision: branch, tag or commit of a hub id; None means the main branch.
        token: access token; None uses `HF_TOKEN` or the saved login.
        cache_dir: folder of downloads; None uses the hub's cache.
        local_files_only: use only what is in the cache.
        subfolder: folder of the codec inside the folder or hub model.
        device: device to load the weights on: cpu (as in torch), cuda, mps, or auto for the first
            of cuda, mps and cpu that this machine has.
    Raises:
        FileNotFoundError: no codec of this name; the message lists the known names.
        ValueError: the folder is damaged or holds no codec that tokgen can run, the codec does
            not have this bandwidth, or it is a waveform codec.
    """
    if waveform_kind(name):
        check_name(name)
    plain, kbps = split_kbps(name)
    if bandwidth is not None and kbps is not None:
        raise ValueError(f"{name}: bandwidth = {bandwidth:g} is set too; leave one of them out")
    bandwidth = kbps if bandwidth is None else bandwidth
    hub: dict[str, Any] = {
        "token": token,
        "cache_dir": cache_dir,
        "local_files_only": local_files_only,
    }
    folder, label, commit = _locate(plain, revision, subfolder, hub)
    adapter, card, config = _identify(folder)
    codec_class = adapter.codec_class()
    if bandwidth is not None:
        try:  # before the weights are loaded
            with suppress(KeyError):  # config.json leaves this setting to the library's default
                codec_class.read_spec(label, config, bandwidth)
        except ValueError as error:
            raise ValueError(f"{label}: {error}") from error
        label = f"{label}:{bandwidth:g}"
    codec = codec_class.from_pretrained(
        folder,
        name=label,
        revision=commit,
        licence=card["licence"],
        bandwidth=bandwidth,
    )
    if not subfolder and not any(hub.values()):
        is_folder = Path(plain).is_dir() and find_in_zoo(str(plain)) is None
        source = str(Path(plain).resolve()) if is_folder else str(plain)
        suffix = "" if bandwidth is None else f":{bandwidth:g}"
        codec.loaded_from = f"{source}{suffix}", commit
    return codec.to(pick_device(device))


def load_roundtrip(
    name: str | Path, *, device: str | torch.device = "cpu", audio_rate: int | None = None
) -> Codec | WaveformCodec:
    """Load a codec, or a waveform codec such as "mp3:24" or "opus:12".

    Args:
        audio_rate: Hz of the audio. MP3 runs at this rate if it has the bitrate there.
    Raises:
        FileNotFoundError: as `load_codec`.
        ValueError: as `load_codec`, or the format does not have this bitrate.
    """
    kind = waveform_kind(name)
    if kind is None:
        return load_codec(name, device=device)
    from tokgen.zoo.adapters.ffmpeg import FfmpegCodec

    check_name(name, waveform=True)
    return FfmpegCodec(kind, cast(float, split_kbps(name)[1]), audio_rate)


def as_codec(codec: str | Path | Codec, *, device: str | torch.device = "auto") -> Codec:
    """Return a codec that is given as an object or by a name of `load_codec`.

    Args:
        device: device to load a named codec on; a codec object stays on its own.
    """
    if codec is None:
        raise TypeError("codec is None: give a name, folder, hub id or Codec")
    return codec if isinstance(codec, Codec) else load_codec(codec, device=pick_device(device))


def as_roundtrip(
    codec: str | Path | Codec | WaveformCodec,
    *,
    device: str | torch.device = "auto",
    audio_rate: int | None = None,
) -> Codec | WaveformCodec:
    """Return a codec that is given as an object or by a name of `load_roundtrip`.

    Args:
        device, audio_rate: as in `load_roundtrip`; a codec object stays as it is.
    """
    if isinstance(codec, str | Path):
        return load_roundtrip(codec, device=pick_device(device), audio_rate=audio_rate)
    return codec


def _locate(
    name: str | Path, revision: str | None, subfolder: str, hub: dict[str, Any]
) -> tuple[Path, str, str | None]:
    """Return the folder, the codec's name, and the commit if it comes from the hub."""
    folder = find_in_zoo(name) if isinstance(name, str) else None
    label = str(name)
    if folder is not None and subfolder:
        folder = resolve_folder(folder, subfolder=subfolder)
    if folder is None and Path(name).is_dir():
        folder = resolve_folder(name, subfolder=subfolder)
        label = folder_name(folder)
    if folder is not None:
        if revision is not None:
            raise ValueError(f"revision {revision!r}: only hub ids have revisions, not {folder}")
        return folder, label, None
    if not is_hub_id(label):
        raise unknown_codec(label)
    try:
        folder = resolve_folder(label, revision, subfolder=subfolder, **hub)
    except FileNotFoundError as error:
        raise unknown_codec(label, str(error)) from error
    label = f"{label}/{subfolder}" if subfolder else label
    return folder, label, commit_of(folder) or revision


def _identify(folder: Path) -> tuple[Adapter, dict[str, str], dict[str, Any]]:
    """Return the adapter for a folder, its licence and summary, and its config.json."""
    config = read_json(folder / CONFIG)
    for adapter in ADAPTERS:
        if config.get("model_type") in (adapter.model_type, *adapter.older_types):
            return adapter, _read_card(folder), config
    known = ", ".join(f"{a.library}'s {a.class_name}" for a in ADAPTERS)
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
