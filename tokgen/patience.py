"""Asking a store on another machine again, before taking a silence for an answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

PAUSES = (1.0, 5.0, 20.0)  # seconds before asking again
_FINAL = (FileNotFoundError, IsADirectoryError, NotImplementedError, ImportError)

T = TypeVar("T")


class StoreError(ConnectionError):
    """A store does not answer: the run stops, and can go on when it does."""


def patiently(call: Callable[[], T], what: object) -> T:
    """Call, and again after pauses where a connection failed.

    Drivers raise what their HTTP libraries do, so anything counts but what says that the file
    cannot be had.

    Raises:
        OSError: gone.
        StoreError: no answer in the end, or access denied.
    """
    for pause in (*PAUSES, None):
        try:
            return call()
        except _FINAL:
            raise
        except PermissionError as error:  # a token that has expired, mostly: no file's fault
            raise StoreError(
                f"{what}: the store refuses ({error}); see to the credentials and start the same "
                "run again: it goes on where it stopped"
            ) from error
        except Exception as error:
            if pause is None:
                raise StoreError(
                    f"{what}: the store does not answer ({type(error).__name__}: {error}); "
                    "start the same run again when it does: it goes on where it stopped"
                ) from error
            time.sleep(pause)
    raise AssertionError("unreachable")
