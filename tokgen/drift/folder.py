"""The folder of a drift measurement: new, to continue, or to replace."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tokgen.codec.depth_files import SUFFIX
from tokgen.codec.identity import without_description
from tokgen.results import to_json
from tokgen.runs.folder import write_json
from tokgen.runs.store import slug

__all__ = ["FILES", "PASS_FILE", "changes", "claim_folder"]

FILES = ("drift.json", "drift.csv", "drift.png", "phase.json", "phase.png")
# of measurements by versions that had no such settings
_EARLIER = {"protocol": "first", "shift": 0, "seed": None, "scored": None}
_EARLIER |= {"stable": None, "grid": None}
PASS_FILE = re.compile(r"pass(\d{1,4})\.wav")


def claim_folder(out: Path, plan: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Make sure that a folder holds results of no other measurement, and write its drift.json.

    A folder of the same plan is left as it is, so that its measurement continues. Until the
    measurement ends, drift.json holds the plan without results.

    Args:
        out: the folder; made if it is missing.
        plan: what the results depend on: "settings" and "versions" by name, and the "codecs" with
            "name" and "spec".
        overwrite: remove the results of another measurement.
    Raises:
        FileExistsError: the folder holds another measurement, or files that may not be of one.
    """
    plan = json.loads(to_json(plan))
    found = [name for name in FILES if (out / name).exists()]
    if found:
        old = _read(out / "drift.json")
        differing = ["it has no drift.json of a measurement"] if old is None else changes(old, plan)
        if not differing:
            return
        if not overwrite:
            raise FileExistsError(
                f"{out} has {', '.join(found)} of another measurement ({'; '.join(differing)}): "
                "choose another folder, or --overwrite to replace them (finished clips are kept)"
            )
        _remove(out, old)
    unmeasured = [{**codec, "points": []} for codec in plan["codecs"]]
    write_json(out / "drift.json", {**plan, "codecs": unmeasured})


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Say what differs between two plans. A key that the old one lacks is not compared."""
    found = []
    names = [[codec["name"] for codec in plan["codecs"]] for plan in (old, new)]
    if names[0] != names[1]:
        found.append(f"codecs were {', '.join(names[0])}, now {', '.join(names[1])}")
    found += _differing("", {**_EARLIER, **old["settings"]}, new["settings"])
    found += _differing("version of ", old["versions"], new["versions"])
    specs = {codec["name"]: codec["spec"] for codec in old["codecs"]}
    for codec in new["codecs"]:
        pair = (specs.get(codec["name"], {}), codec["spec"])
        found += _differing(f"{codec['name']}: ", *map(without_description, pair))
    return found


def _differing(label: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for key in new:
        if key in old and old[key] != new[key]:
            before, now = (_short(values[key]) for values in (old, new))
            yield f"{label}{key} was {before}, now {now}"


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else value
    return text if len(text) <= 40 else text[:12] + "…"


def _read(path: Path) -> dict[str, Any] | None:
    """Read a drift.json; None if it is missing, or not one of a measurement."""
    try:
        content = json.loads(path.read_text("utf-8"))
        changes(content, content)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return content


def _remove(out: Path, old: Mapping[str, Any] | None) -> None:
    """Remove the results of a measurement, and the audio of its codecs."""
    for name in FILES:
        (out / name).unlink(missing_ok=True)
    for codec in old["codecs"] if old else ():
        place = out / "audio" / slug(codec["name"])
        clips = [clip for clip in place.glob("*") if clip.is_dir() and not clip.is_symlink()]
        for path in (path for clip in clips for path in clip.iterdir()):
            is_pass = PASS_FILE.fullmatch(path.name.replace(SUFFIX, ".wav"))
            if path.name == "original.wav" or is_pass:
                path.unlink()
        for folder in (*clips, place):
            with suppress(OSError):  # it holds other files too
                folder.rmdir()
