"""docs/dependencies.md has every package of pyproject.toml; the core needs no extra."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from itertools import chain

import pytest

from makers.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {
    extra: [name for name in packages if not name.startswith("tokgen[")]
    for extra, packages in PROJECT["optional-dependencies"].items()
}


def name_of(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower()


def rows(section: str) -> list[list[str]]:
    """The cells of the tables under a heading of the page."""
    page = (ROOT / "docs/dependencies.md").read_text()
    text = page.split(f"\n## {section}\n")[1].split("\n## ")[0]
    found = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines()
             if line.startswith("|")]  # fmt: skip
    return [row for row in found if row[0] != "package" and not set(row[0]) <= {"-"}]


def test_the_page_names_each_package_of_the_core():
    named = {row[0]: row for row in rows("Core")}
    assert set(named) == {name_of(each) for each in PROJECT["dependencies"]}
    assert all(len(row) == 3 and all(row) for row in named.values())


def test_the_page_names_each_package_of_the_extras():
    named = {
        (extra, package)
        for packages, extras, *why in rows("Extras")
        for package in packages.split(", ")
        for extra in extras.split(", ")
        if all(why)
    }
    assert named == {(e, name_of(each)) for e, packages in EXTRAS.items() for each in packages}


def test_packages_are_named_once_without_old_pins():
    names = [name_of(each) for each in PROJECT["dependencies"]]
    assert len(set(names)) == len(names)
    for packages in EXTRAS.values():
        assert not {name_of(each) for each in packages} & set(names)
    everything = " ".join([*PROJECT["dependencies"], *chain(*EXTRAS.values())]).lower()
    for gone in ("setuptools", "scipy<", "pyworld", "resemblyzer"):
        assert gone not in everything


def imports(path) -> set[str]:
    """Names of the packages that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).split(".")[0])
    return found


def test_torchaudio_and_tqdm_are_imported_in_one_place():
    files = [*(ROOT / "tokgen").rglob("*.py"), *(ROOT / "recipes").rglob("*.py")]
    for package, place in (
        ("torchaudio", "audio/torchaudio_shim.py"),
        ("tqdm", "runs/progress.py"),
    ):
        assert [f for f in files if package in imports(f)] == [ROOT / "tokgen" / place]


@pytest.mark.parametrize("extra", ["eval", "quality", "train", "snac", "speechtokenizer"])
def test_packages_of_extras_are_imported_through_require(extra):
    """Only `require` imports them, so that errors name the extra."""
    modules = {
        "faiss-cpu": "faiss",
        "ai-edge-litert": "ai_edge_litert",
        "moonshine-voice": "moonshine_voice",
        "utmos-pytorch": "utmos_pytorch",
        "visqol-python": "visqol",
        "swift-f0": "swift_f0",
        "vector-quantize-pytorch": "vector_quantize_pytorch",
    }
    names = {modules.get(name_of(each), name_of(each)) for each in EXTRAS[extra]}
    for file in (ROOT / "tokgen").rglob("*.py"):
        assert not imports(file) & names, file


def test_a_missing_faiss_names_the_extra(monkeypatch):
    import torch

    from tokgen.quantizers.residual import ResidualQuantizer

    monkeypatch.setitem(sys.modules, "faiss", None)
    quantizer = ResidualQuantizer(latent_dim=8, n_codebooks=1, codebook_size=4, codebook_dim=2)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'tokgen\[train\]'"):
        quantizer.init_from_data(torch.randn(40, 8))


def test_the_first_command_needs_no_package_of_train():
    """The recipe imports and parses its settings without faiss and TensorBoard."""
    code = (
        "import sys\n"
        "for name in ('faiss', 'tensorboard', 'tensorboardX'): sys.modules[name] = None\n"
        "sys.path.insert(0, 'recipes')\n"
        "import vocode_mfcc, tokgen.quantizers.residual, tokgen.zoo.lookup\n"
        "assert vocode_mfcc.Settings().tracker == 'none'\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
