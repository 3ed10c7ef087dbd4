"""What every recipe needs around its loop: settings, run folders, checkpoints, interrupts."""

from __future__ import annotations

import json
import math
import platform
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from jsonargparse import auto_cli

from tokgen import __version__

Settings = TypeVar("Settings")
LIBRARIES = ("torch", "torchaudio", "transformers", "accelerate", "datasets", "x-transformers")


def parse_settings(
    cls: Callable[..., Settings],
    default_config: Path,
    argv: list[str] | None = None,
    *,
    repeated: str | None = None,
) -> Settings:
    """Build the frozen dataclass `cls` from YAML and flags.

    `--config FILE` replaces `default_config`, so that a file says all it wants; single flags such
    as `--model.depth 6` change what was read. A list named `repeated` may be given as its flag
    several times.
    """
    argv = sys.argv[1:] if argv is None else argv
    if repeated:
        argv = _gather(argv, f"--{repeated}")
    named = any(a == "--config" or a.startswith("--config=") for a in argv)
    files = [] if named else [str(default_config)]
    with plain_errors():
        return auto_cli(cls, args=argv, as_positional=False, default_config_files=files)


def _gather(argv: list[str], flag: str) -> list[str]:
    """`--codec a --codec=b` as `--codec ["a", "b"]`; a JSON list stays as it is."""
    rest, found = [], []
    waiting = False
    for word in argv:
        if waiting:
            found.append(word)
        elif word.startswith(f"{flag}="):
            found.append(word.partition("=")[2])
        elif word != flag:
            rest.append(word)
        waiting = not waiting and word == flag
    if waiting:
        rest.append(flag)  # without a value: the parser says so
    if len(found) == 1 and found[0].startswith("["):
        return [*rest, flag, found[0]]
    return [*rest, flag, json.dumps(found)] if found else rest


def versions() -> dict[str, str]:
    """Versions of tokgen, Python and the libraries that shape results."""
    found = {"tokgen": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a kill leaves the old file or the new one, never half.

    Numbers that JSON does not have (NaN, infinity) become null.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    text = json.dumps(_finite(content), indent=2, default=str, allow_nan=False)
    partial.write_text(text + "\n")
    partial.replace(path)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def clear_results(folder: Path, names: tuple[str, ...]) -> None:
    """Remove what an earlier plan under this name made, so that nothing of it stands beside this.

    Args:
        folder: of the run; one that holds no settings.json is no run and stays as it is.
        names: files and folders below it; what is not named is never touched.
    """
    if not (folder / "settings.json").is_file():
        return
    for path in (folder / name for name in names):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def save_settings(folder: Path, settings: Any, **provenance: Any) -> None:
    """Write `settings.json`: resolved settings, provenance (codec hash …), library versions."""
    content = {"settings": asdict(settings), **provenance, "versions": versions()}
    write_json(folder / "settings.json", content)


def claim_run(folder: Path, settings: Any, free: tuple[str, ...] = (), **provenance: Any) -> None:
    """Refuse to continue a run under other settings than it was begun with.

    Args:
        folder: of the run; nothing is checked while it holds no settings.json.
        settings: the frozen dataclass.
        free: names of settings that may change (those that act after training).
        provenance: what else must be as `save_settings` was told (a codec's weight hash …).
    Raises:
        SystemExit: naming the setting, both values and the way out.
    """
    path = folder / "settings.json"
    if not path.is_file():
        return
    try:
        saved = json.loads(path.read_text())
        before = _flat({**saved["settings"], **{k: saved.get(k) for k in provenance}}, free)
    except (ValueError, KeyError, TypeError) as error:
        raise SystemExit(
            f"error: {path} cannot be read ({error}): delete {folder} to start over"
        ) from error
    now = _flat(json.loads(json.dumps({**asdict(settings), **provenance})), free)
    for name in sorted(set(before) | set(now)):
        if before.get(name) != now.get(name):
            raise SystemExit(
                f"error: {folder} holds a run with {name} = {before.get(name)!r}, not "
                f"{now.get(name)!r}: give another --name, or delete the folder to start over"
            )


def _flat(content: dict[str, Any], free: tuple[str, ...], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as {"model.depth": 6}, without the names in `free`."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if name in free:
            continue
        if isinstance(value, dict):
            flat |= _flat(value, (), f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def step_seed(*parts: int) -> int:
    """One 64-bit seed from several integers (seed, step, process …)."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def read_history(path: Path) -> list[dict[str, Any]]:
    """The lines of a history file; a line cut off by a kill is dropped."""
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def append_history(path: Path, kept: list[dict[str, Any]]) -> Callable[[dict[str, Any]], None]:
    """Rewrite the history with the lines to keep; returns what appends one more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in kept))
    partial.replace(path)

    def append(row: dict[str, Any]) -> None:
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    return append


def pick_precision(wanted: str) -> str:
    """ "auto" -> "bf16" where the hardware multiplies bfloat16, else "no"; others pass through."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "no"


class Interrupt:
    """Turns Ctrl-C and SIGTERM into a flag, so that a loop ends after its step with a checkpoint.

    Made right before the loop and released after it; a second Ctrl-C ends at once.
    """

    def __init__(self) -> None:
        self.raised = False
        numbers = (signal.SIGINT, signal.SIGTERM)
        self._before = {n: signal.signal(n, self._note) for n in numbers}

    def release(self) -> None:
        """Give signals back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.raised:
            raise KeyboardInterrupt
        self.raised = True

    def agreed(self, accelerator: Any) -> bool:
        """Whether any process was interrupted; every process must ask at the same step."""
        if accelerator.num_processes == 1:
            return self.raised
        flag = torch.tensor(float(self.raised), device=accelerator.device)
        return bool(accelerator.reduce(flag, "sum").item())


def run_recipe(main: Callable[[], int]) -> NoReturn:
    """Exit with what `main` returns; Ctrl-C outside its training loop says how to go on."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on from what is saved", file=sys.stderr)
        sys.exit(130)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Around a recipe's preparations: wrong settings or data end it without a traceback."""
    try:
        yield
    except (ValueError, OSError, ModuleNotFoundError) as error:
        raise SystemExit(f"error: {error}") from error


class Checkpoints:
    """Folders `step-<n>` under a run; the newest whole one counts, older ones are removed.

    `save` and `load` are Accelerate's `save_state` and `load_state`. A checkpoint is written
    beside and renamed, so that a kill in the middle leaves the one before.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep

    def steps(self) -> list[int]:
        found = self.folder.glob("step-*") if self.folder.is_dir() else []
        return sorted(int(p.name.removeprefix("step-")) for p in found if p.name[5:].isdigit())

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.folder / f"step-{step}"

    def save(
        self,
        accelerator: Any,
        step: int,
        extra: dict[str, Any] | None = None,
        add: Callable[[Path], None] | None = None,
    ) -> None:
        """Save everything Accelerate prepared, and `extra` as JSON.

        `add` writes more files to the folder that it gets; every process calls it.
        """
        target = self.path(step)
        partial = self.folder / f"partial-{step}"
        if accelerator.is_main_process and partial.exists():
            shutil.rmtree(partial)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(partial))
        if add is not None:
            add(partial)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            write_json(partial / "extra.json", extra or {})
            if target.exists():
                shutil.rmtree(target)
            partial.rename(target)
            for old in self.steps()[: -self.keep]:
                shutil.rmtree(self.path(old))
        accelerator.wait_for_everyone()

    def resume(self, accelerator: Any) -> tuple[int, dict[str, Any]]:
        """Load the newest checkpoint; (step, extra), or (0, {}) where there is none."""
        steps = self.steps()
        if not steps:
            return 0, {}
        folder = self.path(steps[-1])
        accelerator.load_state(str(folder))
        return steps[-1], json.loads((folder / "extra.json").read_text())
