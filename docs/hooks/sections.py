"""Let mkdocstrings see every section of our docstrings.

Its parser needs an empty line above `Args:`, `Returns:`, `Raises:` and `Attributes:`. Ours have one
only above the first.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

SECTION = re.compile(r"(?<!\n)\n(?=(?:Args|Returns|Yields|Raises|Attributes):\n)")


class Sections(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = SECTION.sub("\n\n", obj.docstring.value)
