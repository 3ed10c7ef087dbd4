"""Checks of settings and of files to write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tokgen.runs.checks import check_folder, check_writable


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    (tmp_path / "a.wav").write_bytes(b"audio")
    return tmp_path / "a.wav"


def test_new_files_can_be_written_and_nothing_is_made(tmp_path: Path, audio: Path) -> None:
    check_writable(tmp_path / "b.WAV", inputs=[audio], suffixes=(".wav", ".flac"))
    check_writable(str(tmp_path / "new/folder/b.flac"), inputs=[str(audio), "none.wav"])
    assert list(tmp_path.iterdir()) == [audio]


def test_an_input_is_never_written_to(tmp_path: Path, audio: Path) -> None:
    (tmp_path / "soft").symlink_to(audio)
    os.link(audio, tmp_path / "hard")
    (tmp_path / "folder").symlink_to(tmp_path)
    for name in ("a.wav", "soft", "hard", "folder/a.wav", "../" + tmp_path.name + "/a.wav"):
        for overwrite in (False, True):
            with pytest.raises(ValueError, match="is an input file: give another file"):
                check_writable(tmp_path / name, inputs=["x", audio], overwrite=overwrite)
    with pytest.raises(ValueError, match="is an input file"):
        check_writable(audio, inputs=[tmp_path / "soft"], overwrite=True)


def test_existing_files_need_overwrite(tmp_path: Path, audio: Path) -> None:
    (tmp_path / "broken").symlink_to("nothing")
    for path in (audio, tmp_path / "broken"):
        with pytest.raises(
            FileExistsError, match="already exists: give another file, or set overwrite"
        ):
            check_writable(path)
        check_writable(path, overwrite=True)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a regular file"):
        check_writable(tmp_path / "pipe", overwrite=True)


def test_folders_and_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder: give a file"):
        check_writable(tmp_path, overwrite=True)
    with pytest.raises(ValueError, match=r"b\.txt must end in \.wav or \.flac"):
        check_writable(tmp_path / "b.txt", suffixes=(".wav", ".flac"))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, audio: Path) -> None:
    with pytest.raises(NotADirectoryError, match=r"a\.wav is not a folder"):
        check_writable(audio / "b/c.wav")
    with pytest.raises(PermissionError, match="/proc cannot be written to"):
        check_folder("/proc/none")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_write_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=f"{tmp_path} cannot be written to"):
        check_writable(tmp_path / "new/b.wav")
    tmp_path.chmod(0o700)
