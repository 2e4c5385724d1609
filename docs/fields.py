"""A hook of mkdocs: puts tables of all config fields where a page says `<!-- fields: NAME -->`."""

import re
from typing import Any

from bahdanau_jax.runs import config, language_model_config, seq2seq_config, word_vectors_config
from bahdanau_jax.runs.parse_config import describe_fields

_MODULES = config, language_model_config, seq2seq_config, word_vectors_config
_SCHEMAS = {name: value for module in _MODULES for name, value in vars(module).items()}
MARKER = re.compile(r"^<!-- fields: (\w+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Called by mkdocs with the text of each page."""
    return MARKER.sub(lambda found: field_table(found[1]), markdown)


def field_table(schema: str) -> str:
    """Markdown table of the fields of `Config`, `WordVectorsConfig`, `LanguageModelConfig` or
    `Seq2SeqConfig`.

    Example:
      >>> print(field_table("Config").splitlines()[2])
      | `seed` | `0` | an integer of at least 0 | Seed of the weights, dropout and the order of batches. |
    """
    rows = ["| field | default | accepts | |", "|---|---|---|---|"]
    for name, default, expected, sentence in describe_fields(_SCHEMAS[schema]):
        cells = [f"`{name}`", f"`{default!r}`", expected, sentence]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)
