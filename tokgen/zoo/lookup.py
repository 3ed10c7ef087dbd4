"""Find and load codecs by name: `list_codecs()`, `load_codec()` and `load_roundtrip()`.

A zoo is a folder of codec folders. Each codec folder can be loaded by `from_pretrained` of its
library. `license` and `summary` are in the metadata of its README.md, or in a codec.toml in folders
of older versions. A name is looked up in `$TOKGEN_ZOO`, in `codecs/` of a checkout, in the copy
inside an installed wheel, then as a folder, then as a hub id. A suffix such as ":6" selects 6 kbps
of a codec that has several bitrates.
"mp3:24" and "opus:12" are waveform codecs, which only `load_roundtrip` loads. It loads continuous
codecs too, as `tokgen.zoo.continuous.load_continuous` does.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch

from tokgen.codec.base import Codec, WaveformCodec
from tokgen.codec.continuous import ContinuousCodec
from tokgen.nn.hub import CONFIG
from tokgen.runs.device import pick_device
from tokgen.zoo.cards import CodecCard, CodecList
from tokgen.zoo.finding import FoundCodec, find_codec, identify, load_found
from tokgen.zoo.folders import zoo_folders
from tokgen.zoo.names import (
    check_name,
    find_in_zoo,
    split_kbps,
    waveform_kind,
)

__all__ = [
    "as_codec",
    "as_roundtrip",
    "list_codecs",
    "load_codec",
    "load_network",
    "load_roundtrip",
    "read_card",
]


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
    adapter, card, config = identify(folder)
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
            not have this bandwidth, or it is a waveform codec or a continuous one.
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
    found = find_codec(plain, revision, subfolder, hub)
    if found.continuous:
        raise ValueError(
            f"{found.name} is a continuous codec and has no codes: load_continuous or "
            "load_roundtrip loads it, and recipes/quantize_offline.py makes a codec of it"
        )
    return _load(found, bandwidth).to(pick_device(device))


def _load(found: FoundCodec, bandwidth: float | None) -> Codec:
    label, codec_class = found.name, found.adapter.codec_class()
    if bandwidth is not None:
        try:  # before the weights are loaded
            with suppress(KeyError):  # config.json leaves this setting to the library's default
                codec_class.read_spec(label, found.config, bandwidth)
        except ValueError as error:
            raise ValueError(f"{label}: {error}") from error
        label = f"{label}:{bandwidth:g}"
    codec = codec_class.from_pretrained(
        found.folder,
        name=label,
        revision=found.commit,
        licence=found.card["licence"],
        bandwidth=bandwidth,
    )
    if found.source is not None:
        suffix = "" if bandwidth is None else f":{bandwidth:g}"
        codec.loaded_from = f"{found.source}{suffix}", found.commit
    return codec


def load_network(
    name: str | Path, *, revision: str | None = None, device: str | torch.device = "cpu"
) -> Codec | ContinuousCodec:
    """Load a codec with or without a quantizer.

    Args:
        name, revision, device: as for `load_codec`.
    Raises:
        FileNotFoundError, ValueError: as `load_codec`.
    """
    if waveform_kind(name):
        check_name(name)
    plain, kbps = split_kbps(name)
    found = find_codec(plain, revision)
    codec = load_found(found, kbps) if found.continuous else _load(found, kbps)
    return codec.to(pick_device(device))


def load_roundtrip(
    name: str | Path, *, device: str | torch.device = "cpu", audio_rate: int | None = None
) -> Codec | WaveformCodec:
    """Load a codec, a continuous codec, or a waveform codec such as "mp3:24" or "opus:12".

    Args:
        audio_rate: Hz of the audio. MP3 runs at this rate if it has the bitrate there.
    Raises:
        FileNotFoundError: as `load_codec`.
        ValueError: as `load_codec`, or the format does not have this bitrate.
    """
    kind = waveform_kind(name)
    if kind is None:
        return load_network(name, device=device)
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
    if codec is None:
        raise TypeError("codec is None: give a name, folder, hub id or Codec")
    if isinstance(codec, str | Path):
        return load_roundtrip(codec, device=pick_device(device), audio_rate=audio_rate)
    return codec
