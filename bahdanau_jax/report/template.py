"""The HTML templates of the report and of the demo."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from bahdanau_jax.report.reviews import SHADES
from bahdanau_jax.runs.console import format_seconds


@cache
def template(name: str) -> Template:
    """A file of `templates/`. It escapes the values, and an undefined one is an error."""
    environment = Environment(
        loader=PackageLoader("bahdanau_jax.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": lambda x, digits=1: "–" if x is None else f"{x:.{digits}%}",
        "figure": lambda x, digits=4: "–" if x is None else f"{x:.{digits}f}".replace("-", "−"),
        "signed": lambda x, digits=3: f"{x:+.{digits}f}".replace("-", "−"),
        "seconds": format_seconds,
    }
    environment.globals["shades"] = range(1, SHADES + 1)
    return environment.get_template(name)
