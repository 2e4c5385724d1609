"""A griffe extension: shows `Example:` as a session, `Example::` as code, and flags as a list."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Changes the docstring of each object that griffe has read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called by griffe with each object."""
        if obj.docstring is not None:
            text = obj.docstring.value.replace("Example::\n", "For example:\n")
            text = text.replace("Example:\n", "Examples:\n")
            obj.docstring.value = re.sub(r"^(--\w+) {2,}", r"- `\1` ", text, flags=re.MULTILINE)
