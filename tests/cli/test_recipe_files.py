"""List the recipes that come with tokgen, and copy one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from makers.paths import ROOT
from tokgen.cli import main as cli
from tokgen.cli import recipe_files
from tokgen.cli.recipe_files import copy_recipe, list_recipes


def test_the_recipes_are_listed_with_their_settings() -> None:
    found = {recipe.name: recipe for recipe in list_recipes()}
    assert set(found) == {path.stem for path in (ROOT / "recipes").glob("*.py")}
    kinds = ["", ".delay", ".generator", ".paper"]
    assert found["vocode_mfcc"].configs == [f"vocode_mfcc{kind}.yaml" for kind in kinds]
    assert all(recipe.summary.endswith(".") for recipe in found.values())


def test_a_copy_has_what_the_commands_name(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["recipes", "copy", "vocode_mfcc", "--to", str(tmp_path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    files = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert files == set(said["written"]) and said["unchanged"] == []
    for name in ("vocode_mfcc.py", "vocode_mfcc.yaml", "accelerate/ddp_cpu.yaml"):
        copied = (tmp_path / "recipes" / name).read_bytes()
        assert copied == (ROOT / "recipes" / name).read_bytes()
    assert (tmp_path / "recipes/data/allison/allison.parquet").is_file()
    assert not (tmp_path / "recipes/train_codec.py").exists()
    done = subprocess.run(
        [sys.executable, "recipes/vocode_mfcc.py", "--print_config"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "batch_size: 8" in done.stdout and "name: vocode_mfcc" in done.stdout


def test_recipes_that_a_recipe_imports_come_along(tmp_path: Path, monkeypatch) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.py").write_text('"""Recipe a."""\nimport b\nimport math\n')
    (source / "b.py").write_text('"""Recipe b."""\nfrom c import x\n')
    (source / "c.py").write_text('"""Recipe c."""\nimport a\nx = 1\n')
    (source / "b.yaml").write_text("")
    (source / "d.py").write_text('"""Recipe d."""\n')
    monkeypatch.setattr(recipe_files, "recipe_folder", lambda: source)
    copied = copy_recipe("a", tmp_path / "to")
    assert copied.written == ["recipes/a.py", "recipes/b.py", "recipes/b.yaml", "recipes/c.py"]


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    copy_recipe("train_codec", tmp_path)
    again = copy_recipe("train_codec", tmp_path)
    assert again.written == [] and "recipes/train_codec.py" in again.unchanged
    mine = tmp_path / "recipes" / "train_codec.yaml"
    mine.write_text("steps: 3\n")
    (tmp_path / "recipes" / "accelerate" / "ddp.yaml").unlink()
    with pytest.raises(FileExistsError, match=r"train_codec.yaml has other content: .*--overwrite"):
        copy_recipe("train_codec", tmp_path)
    assert mine.read_text() == "steps: 3\n"
    assert not (tmp_path / "recipes" / "accelerate" / "ddp.yaml").exists()
    replaced = copy_recipe("train_codec", tmp_path, overwrite=True)
    assert set(replaced.written) == {"recipes/train_codec.yaml", "recipes/accelerate/ddp.yaml"}
    assert mine.read_bytes() == (ROOT / "recipes" / "train_codec.yaml").read_bytes()
