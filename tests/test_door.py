"""`import tokgen`: its names, lazily."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tokgen

HEAVY = (
    "torch", "numpy", "datasets", "transformers", "accelerate", "pyarrow", "matplotlib",
    "huggingface_hub", "jsonargparse", "soundfile",
)  # fmt: skip


def test_import_tokgen_imports_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import tokgen; dir(tokgen); tokgen.__all__; "
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = done.stdout.split()
    assert not [name for name in found if name.partition(".")[0] in HEAVY]
    assert "tokgen" in found


@pytest.mark.parametrize("name", tokgen.__all__)
def test_every_name_is_there_and_documented(name: str) -> None:
    found = getattr(tokgen, name)
    assert found.__name__ == name and found.__doc__
    assert name in dir(tokgen)


def test_the_lists_of_names_agree() -> None:
    tree = ast.parse(Path(tokgen.__file__).read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        alias.name: node.module
        for block in blocks
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == {name: f"tokgen.{module}" for name, module in tokgen._MODULES.items()}
    assert tokgen.__all__ == sorted(typed)


def test_a_wrong_name_gets_a_hint() -> None:
    with pytest.raises(AttributeError, match="no attribute 'load_codek'; did you mean 'load_codec"):
        _ = tokgen.load_codek
    with pytest.raises(AttributeError, match=r"no attribute 'zzz'$"):
        _ = tokgen.zzz


def test_from_tokgen_import_and_star() -> None:
    names: dict[str, object] = {}
    exec("from tokgen import *", names)
    assert set(tokgen.__all__) <= set(names)


def test_the_package_is_typed() -> None:
    assert (Path(tokgen.__file__).parent / "py.typed").is_file()
