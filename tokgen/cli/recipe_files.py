"""The recipes that come with tokgen: list them, and copy one to change and run it.

In a checkout they are in `recipes/`, in an installed wheel inside the package.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokgen
from tokgen.results import Grid, Result
from tokgen.runs.checks import closest

__all__ = [
    "FOLDER",
    "SHARED",
    "CopiedRecipe",
    "Recipe",
    "RecipeList",
    "copy_recipe",
    "list_recipes",
    "recipe_folder",
]

FOLDER = "recipes"
SHARED = ("accelerate", "data/allison")  # folders that every recipe's commands name


@dataclass(frozen=True)
class Recipe:
    """A recipe.

    Attributes:
        name: file name without ".py".
        summary: first line of its docstring.
        configs: its settings files.
    """

    name: str
    summary: str
    configs: list[str]


class RecipeList(list[Recipe], Result):
    """Recipes: a list, and a result."""

    def parts(self) -> list[Grid | str]:
        rows = [(r.name, r.summary, " ".join(r.configs)) for r in self]
        return [Grid([("name", "summary", "settings"), *rows])]

    def records(self) -> list[dict[str, Any]]:
        return [vars(recipe) for recipe in self]

    def to_dict(self) -> dict[str, Any]:
        return {"recipes": self.records()}


@dataclass(frozen=True)
class CopiedRecipe(Result):
    """Facts about a copied recipe.

    Attributes:
        name: name of the recipe.
        folder: folder that `recipes/` was copied to.
        written: files that were written, relative to `folder`.
        unchanged: files that were already there.
    """

    name: str
    folder: Path
    written: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)

    def parts(self) -> list[Grid | str]:
        same = f", {len(self.unchanged)} were already there" if self.unchanged else ""
        return [
            f"{self.folder / FOLDER}: {len(self.written)} files{same}",
            f"run it in {self.folder.resolve()}: accelerate launch -q {FOLDER}/{self.name}.py",
        ]

    def records(self) -> list[dict[str, Any]]:
        return [{"file": f, "written": f in self.written} for f in self.written + self.unchanged]

    def to_dict(self) -> dict[str, Any]:
        return vars(self) | {"folder": str(self.folder)}


def list_recipes() -> RecipeList:
    """Return the recipes, sorted by name."""
    found = []
    for path in sorted(recipe_folder().glob("*.py")):
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        configs = [config.name for config in _configs(path)]
        found.append(Recipe(path.stem, doc.partition("\n")[0], configs))
    return RecipeList(found)


def copy_recipe(name: str, to: str | Path = ".", *, overwrite: bool = False) -> CopiedRecipe:
    """Copy a recipe, its settings, the recipes that it imports, and the included corpus.

    Args:
        name: a name in `list_recipes`.
        to: folder that gets a folder `recipes`.
        overwrite: replace files that have other content.
    Raises:
        ValueError: no recipe has this name.
        FileExistsError: a file has other content, and `overwrite` is False. Nothing is copied.
    """
    source, folder = recipe_folder(), Path(to)
    names = [recipe.name for recipe in list_recipes()]
    if name not in names:
        raise ValueError(f"no recipe {name!r}{closest(name, names)}; there are {', '.join(names)}")
    contents = {path.relative_to(source): path.read_bytes() for path in _files(source, name)}
    targets = {relative: folder / FOLDER / relative for relative in contents}
    same = {r for r, path in targets.items() if path.is_file() and path.read_bytes() == contents[r]}
    other = [str(path) for r, path in targets.items() if path.exists() and r not in same]
    if other and not overwrite:
        raise FileExistsError(
            f"{', '.join(other[:3])} {'has' if len(other) == 1 else 'have'} other content: give "
            "another folder with --to, or --overwrite"
        )
    copied = CopiedRecipe(name, folder)
    for relative, path in targets.items():
        file = f"{FOLDER}/{relative.as_posix()}"
        if relative in same:
            copied.unchanged.append(file)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[relative])
        copied.written.append(file)
    return copied


def recipe_folder() -> Path:
    """Return the folder of the recipes: the checkout's, or the one in the installed wheel."""
    package = Path(tokgen.__file__).parent
    checkout = package.parent / FOLDER
    if (package.parent / "pyproject.toml").is_file() and checkout.is_dir():
        return checkout
    return package / "_recipes"


def _files(source: Path, name: str) -> Iterator[Path]:
    for recipe in sorted(_imported(source, name)):
        path = source / f"{recipe}.py"
        yield from (path, *_configs(path))
    for folder in SHARED:
        yield from sorted(path for path in (source / folder).rglob("*") if path.is_file())


def _configs(path: Path) -> list[Path]:
    """Return NAME.yaml, then NAME.*.yaml."""
    found = [*path.parent.glob(f"{path.stem}.yaml"), *path.parent.glob(f"{path.stem}.*.yaml")]
    return [found[0], *sorted(found[1:])] if found else []


def _imported(source: Path, name: str) -> set[str]:
    """Return a recipe's name and the names of the recipes that it imports, at any depth."""
    found, left = set(), {name}
    while left:
        found |= left
        left = {module for recipe in left for module in _modules(source / f"{recipe}.py")} - found
        left = {module for module in left if (source / f"{module}.py").is_file()}
    return found


def _modules(path: Path) -> set[str]:
    """Return the names of the modules that a Python file imports."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
