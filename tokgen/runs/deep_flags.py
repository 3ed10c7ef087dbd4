"""Flags for settings inside of settings that are dicts, such as `--model.rope_parameters.type`.

jsonargparse reads one level of a dict (`--model.dim 32`), and replaces what lies deeper.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

__all__ = ["DeepFlags", "merged", "split_deep", "with_deep"]

Settings = TypeVar("Settings")
DeepFlags = list[tuple[list[str], Any]]  # names from the outermost on, and the value


def split_deep(argv: Sequence[str], cls: type) -> tuple[list[str], DeepFlags]:
    """Take flags of two or more levels inside a dict out of a command line.

    Args:
        argv: the flags.
        cls: class of the settings, a dataclass.
    Returns:
        the other flags, and the names and the value of each that was taken. Values are YAML.
    Raises:
        ValueError: a flag has no value, or one that is not YAML.
    """
    dicts = [name for name, kind in get_type_hints(cls).items() if _is_dict(kind)]
    rest, deep, words = [], [], deque(argv)
    while words:
        word = words.popleft()
        flag, equals, value = word.partition("=")
        names = flag.removeprefix("--").replace("-", "_").split(".")
        if word == "--":
            rest += [word, *words]
            break
        if not word.startswith("--") or len(names) < 3 or names[0] not in dicts:
            rest.append(word)
            continue
        if not equals:
            if not words or words[0].startswith("--"):
                raise ValueError(f"{flag} has no value: give one after it")
            value = words.popleft()
        deep.append((names, _value(flag, value)))
    return rest, deep


def with_deep(settings: Settings, deep: DeepFlags) -> Settings:
    """Return settings, a dataclass, with the values that `split_deep` took.

    Raises:
        ValueError: a name leads into a value that is no dict, or a value is out of range.
    """
    changes: dict[str, Any] = {}
    for names, value in deep:
        whole = changes.get(names[0], getattr(settings, names[0]))
        inside: Any = value
        for name in reversed(names[1:]):
            inside = {name: inside}
        changes[names[0]] = merged(whole, inside, names[0])
    return replace(settings, **changes) if changes else settings  # type: ignore[type-var]


def merged(old: Any, new: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a dict with the values of another one, at every depth.

    Args:
        old: the dict that is changed, or None.
        new: values; a dict in it changes the dict of the same name, if there is one.
        name: of the dict, for the message.
    Raises:
        ValueError: `old` is no dict.
    """
    if old is not None and not isinstance(old, Mapping):
        inside = f"setting {next(iter(new))!r}" if new else "settings"
        raise ValueError(f"{name} is {old!r}, which has no {inside} inside")
    found = dict(old or {})
    for key, value in new.items():
        inner = isinstance(value, Mapping) and found.get(key) is not None
        found[key] = merged(found[key], value, f"{name}.{key}") if inner else value
    return found


def _is_dict(kind: Any) -> bool:
    """Return whether a type is a dict, or a union with one."""
    origin = get_origin(kind) or kind
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return True
    return any(_is_dict(each) for each in get_args(kind) if each is not Any)


def _value(flag: str, text: str) -> Any:
    """Return a value as YAML; 1e-3 is a number, unlike in YAML 1.1."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{flag} is {text!r}, which is not YAML") from error
    if isinstance(found, str):
        try:
            return float(found)
        except ValueError:
            pass
    return found
