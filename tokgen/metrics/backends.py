"""TODO backends"""

from __future__ import annotations

import urllib.request


def hub_model_in_reach(name: str, timeout: float = 5.0) -> bool:
    """Whether the hub answers for model `name` within `timeout` seconds."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        url = f"{constants.ENDPOINT}/api/models/{name}"
        with urllib.request.urlopen(url, timeout=timeout):
            return True
    except OSError:
        return False
