"""The wheel holds the codecs and the recipes with their licences, and works without a checkout."""

from __future__ import annotations

import email
import json
import os
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

import pytest

from makers.paths import ROOT

pytest.importorskip("build", reason="needs the packages build and hatchling")
pytest.importorskip("hatchling", reason="needs the packages build and hatchling")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(out), ROOT]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("tokgen-*.whl"))


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as files:
        name = next(n for n in files.namelist() if n.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(files.read(name))


def test_the_metadata_names_the_licences_of_code_and_data(wheel: Path, metadata: Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0 AND CC-BY-SA-3.0"
    listed = set(metadata.get_all("License-File", []))
    data = [*(ROOT / "codecs").iterdir(), *(ROOT / "recipes" / "data").glob("*/")]
    expected = {f"{folder.relative_to(ROOT)}/LICENSE" for folder in data if folder.is_dir()}
    assert listed == {"LICENSE", *expected}
    with zipfile.ZipFile(wheel) as files:
        for name in files.namelist():
            if "/licenses/codecs/" in name or "/licenses/recipes/" in name:
                text = files.read(name).decode()
                assert "SPDX-License-Identifier: CC-BY-SA-3.0" in text and "Allison Smith" in text


def test_the_wheel_has_every_recipe_and_codec(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as files:
        names = set(files.namelist())
    recipes = ROOT / "recipes"
    for path in (*recipes.glob("*.py"), *recipes.glob("*.yaml"), *recipes.glob("accelerate/*")):
        assert f"tokgen/_recipes/{path.relative_to(recipes).as_posix()}" in names
    assert "tokgen/_recipes/data/allison/allison.parquet" in names
    assert "tokgen/_codecs/speech-16k/model.safetensors" in names
    assert "tokgen/_codecs/speech-16k/generator/model.safetensors" in names
    assert "tokgen/py.typed" in names
    assert not [n for n in names if "benchmarks" in n or n.startswith(("tests/", "recipes/"))]


@pytest.mark.slow
def test_an_installed_wheel_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    target, work = tmp_path / "installed", tmp_path / "work"
    work.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(wheel)], check=True, capture_output=True)
    environment = {k: v for k, v in os.environ.items() if k != "TOKGEN_ZOO"}
    environment["PYTHONPATH"] = str(target)

    def run(*args: str) -> str:
        done = subprocess.run(
            [sys.executable, *args],
            cwd=work,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    codecs = json.loads(run("-m", "tokgen", "codecs", "--json"))["codecs"]
    names = ["speech-16k", "speech-16k-code", "speech-16k-continuous", "speech-16k-live"]
    names.append("speech-16k-vbr")
    assert [c["name"] for c in codecs] == names
    assert all(Path(c["folder"]).is_relative_to(target) for c in codecs)
    recipes = json.loads(run("-m", "tokgen", "recipes", "list", "--json"))["recipes"]
    assert {r["name"] for r in recipes} == {p.stem for p in (ROOT / "recipes").glob("*.py")}
    run("-m", "tokgen", "recipes", "copy", "compare_codecs")
    assert "corpus: recipes/data/allison" in run("recipes/compare_codecs.py", "--print_config")
    assert "sample rate  16000 Hz" in run("-m", "tokgen", "info", "speech-16k")
