"""Arguments and errors of the Hugging Face hub, the same for models and datasets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypedDict

__all__ = ["ANSWER_SECONDS", "HubArguments", "cache_only", "why_unavailable"]

ANSWER_SECONDS = 10.0  # the hub usually answers in less than one


class HubArguments(TypedDict, total=False):
    """Arguments of everything that loads from the hub.

    Attributes:
        token: access token; None uses `HF_TOKEN` or the saved login.
        cache_dir: folder of downloads; None uses the hub's cache.
        local_files_only: use only what is in the cache.
        subfolder: folder of the model inside the folder or hub model.
    """

    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool
    subfolder: str


@contextmanager
def cache_only(name: str) -> Iterator[None]:
    """Use only the cache of datasets in the `with` block, if the hub does not answer.

    Without this, `datasets` repeats the request for half a minute.

    Args:
        name: hub id of the dataset.
    """
    import datasets
    from huggingface_hub import HfApi, constants, errors

    try:
        HfApi().dataset_info(name, timeout=ANSWER_SECONDS)
    except Exception as error:
        answered = any(_status(cause) is not None for cause in _causes(error))
        if not answered and not isinstance(error, errors.HFValidationError):
            before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
            datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
            try:
                yield
            finally:
                datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before
            return
    yield


def why_unavailable(
    error: Exception,
    name: str,
    *,
    kind: Literal["model", "dataset"] = "model",
    revision: str | None = None,
    local_files_only: bool = False,
) -> str:
    """Say why something could not be loaded from the hub, and what to do.

    Args:
        error: of huggingface_hub or of datasets.
        name: hub id.
        kind: what was loaded.
        revision: that was asked for.
        local_files_only: only the cache was searched.
    """
    from huggingface_hub import constants, errors

    command = " ".join(
        [
            "hf download",
            *(["--repo-type dataset"] if kind == "dataset" else []),
            name,
            *([f"--revision {revision}"] if revision else []),
        ]
    )
    causes = _causes(error)
    status = next((s for e in causes if (s := _status(e)) is not None), None)

    def caused_by(*kinds: type[Exception]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    if caused_by(errors.HFValidationError):
        return f"not a hub id: {error}"
    if caused_by(errors.GatedRepoError):
        return (
            f"the hub {kind} is gated: accept its terms on {constants.ENDPOINT}, then set HF_TOKEN "
            "or pass `token`"
        )
    if caused_by(errors.RevisionNotFoundError):
        return f"the hub {kind} has no revision {revision!r}"
    unknown = any(type(cause).__name__ == "DatasetNotFoundError" for cause in causes)
    if unknown or caused_by(errors.RepositoryNotFoundError) or status in (401, 403):
        answer = f" ({status})" if status else ""
        return (
            f"the hub knows no such {kind}, or it is private{answer}: check the id; for a private "
            f"{kind}, set HF_TOKEN or pass `token`"
        )
    if constants.HF_HUB_OFFLINE or local_files_only:
        fix = "pass local_files_only=False" if local_files_only else "unset HF_HUB_OFFLINE"
        return (
            f"the hub {kind} is not in the cache, and downloads are off: {fix}, or run `{command}` "
            f"with a connection (and HF_TOKEN, if the {kind} is private)"
        )
    return (
        f"the hub cannot be reached: check the connection, or run `{command}` where there is one "
        f"(with HF_TOKEN, if the {kind} is private)"
    )


def _causes(error: BaseException | None) -> list[BaseException]:
    """Return an error and the errors that it was raised from or while handling."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)
