"""Shows docstrings as Markdown does best: `Example:` as a session, `Example::` as code, flags as a list."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """What griffe calls for each object that it has read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Changes the text in memory."""
        if obj.docstring is not None:
            text = obj.docstring.value.replace("Example::\n", "For example:\n")
            text = text.replace("Example:\n", "Examples:\n")
            obj.docstring.value = re.sub(r"^(--\w+) {2,}", r"- `\1` ", text, flags=re.MULTILINE)
