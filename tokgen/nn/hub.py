"""Folders of models on this machine and on the Hugging Face hub."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Unpack

from tokgen.hub import HubArguments, why_unavailable
from tokgen.runs.progress import quiet_logs

__all__ = ["CONFIG", "PATTERNS", "Pushable", "commit_of", "resolve_folder"]

CONFIG = "config.json"
PATTERNS = ("*.json", "*.safetensors", "*.toml", "README.md")


class Pushable:
    """Mixin with `push_to_hub` for classes that have `save_pretrained`."""

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        commit_message: str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        **saving: Any,
    ) -> str:
        """Upload what `save_pretrained` writes. A card that is on the hub already is kept.

        Args:
            repo_id: "owner/name"; is created if it is missing.
            private: visibility of a new repository; None uses the owner's default.
            token: access token; None uses `HF_TOKEN` or the saved login.
            commit_message: first line of the commit.
            revision: branch; is created if it is missing. None uses "main".
            create_pr: open a pull request in place of a commit.
            saving: further arguments of `save_pretrained`, such as `card`.
        Returns:
            URL of the commit.
        Raises:
            huggingface_hub.errors.HfHubHTTPError: the hub refuses.
        """
        from huggingface_hub import HfApi

        from tokgen.nn.cards import CARD, is_written_by_hand

        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            keep = api.file_exists(repo_id, CARD, revision=revision) and is_written_by_hand(
                Path(api.hf_hub_download(repo_id, CARD, revision=revision))
            )
            self.save_pretrained(folder, **saving)  # type: ignore[attr-defined]
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=commit_message or f"Upload {type(self).__name__}",
                revision=revision,
                create_pr=create_pr,
                ignore_patterns=[CARD] if keep else None,
            )
        return commit.commit_url


def resolve_folder(
    name: str | Path,
    revision: str | None = None,
    *,
    published: Sequence[str] = (),
    **hub: Unpack[HubArguments],
) -> Path:
    """Return the local folder of a saved model. A hub id is downloaded.

    Args:
        name: folder, or hub id "owner/name".
        revision: branch, tag or commit of a hub id; None means the main branch.
        published: patterns of the names of other files that make a folder a model's folder.
        hub: see `tokgen.hub.HubArguments`.
    Raises:
        FileNotFoundError: not a folder with a config.json, nor a hub model that can be reached.
            The message names the cause and the fix.
    """
    root = Path(name)
    if not root.is_dir():
        root = _download(str(name), revision, published, **hub)
    folder = root / hub.get("subfolder", "")
    if not (folder / CONFIG).is_file() and not _holds(folder, published):
        inside = folder / "model"
        hint = f"; the model of this run is {inside}" if (inside / CONFIG).is_file() else ""
        raise FileNotFoundError(f"{folder} holds no model: it has no {CONFIG}{hint}")
    return folder


def _holds(folder: Path, patterns: Sequence[str]) -> bool:
    """Return whether a folder has a file whose name matches one of some patterns."""
    if not patterns or not folder.is_dir():
        return False
    names = [path.name for path in folder.iterdir() if path.is_file()]
    return any(fnmatch(name, pattern) for name in names for pattern in patterns)


def commit_of(folder: Path) -> str | None:
    """Return the commit of a downloaded folder; None for other folders."""
    parts = folder.parts  # the cache names folders models--owner--name/snapshots/commit
    for before, snapshots, commit in zip(parts, parts[1:], parts[2:], strict=False):
        if snapshots == "snapshots" and before.startswith("models--"):
            return commit
    return None


def _download(
    name: str,
    revision: str | None,
    published: Sequence[str] = (),
    *,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    subfolder: str = "",
) -> Path:
    """Download a hub model, or raise a FileNotFoundError that names the cause."""
    from huggingface_hub import errors, snapshot_download

    inside = f"{subfolder.strip('/')}/" if subfolder else ""
    try:
        with quiet_logs():
            return Path(
                snapshot_download(
                    name,
                    revision=revision,
                    token=token,
                    cache_dir=cache_dir,
                    local_files_only=local_files_only,
                    allow_patterns=[inside + pattern for pattern in (*PATTERNS, *published)],
                )
            )
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        reason = why_unavailable(error, name, revision=revision, local_files_only=local_files_only)
        raise FileNotFoundError(f"{name!r} is not a folder, and {reason}") from error
