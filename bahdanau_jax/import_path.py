"""Objects by their import path, "package.module:Name": how a config names code of your own."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from bahdanau_jax.errors import InputError, one_line


def load_object(path: str, field: str) -> Callable[..., Any]:
    """Imports a class or function.

    Args:
      path: "package.module:Name"; the module is found on the import path, as PYTHONPATH extends it.
      field: the config's field that holds the path, for messages.

    Raises:
      InputError: the path has another form, the module cannot be imported, or has no such class or function.

    Example:
      >>> load_object("collections:Counter", "config.model.target")("aab")["a"]
      2
    """
    module_name, colon, name = path.partition(":")
    if (
        not colon
        or not name.isidentifier()
        or not all(map(str.isidentifier, module_name.split(".")))
    ):
        raise InputError(f'{field} is {path!r}; expected an import path, "package.module:Name"')
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises while it is imported
        raise InputError(
            f"{field} is {path!r}; {module_name} cannot be imported ({type(error).__name__}: "
            f"{one_line(error)[:200]}); expected a module on the import path (PYTHONPATH extends it)"
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        what = "has no name" if found is None else "has, but cannot call,"
        raise InputError(
            f"{field} is {path!r}; {module_name} {what} {name}; expected a class or function"
        )
    return found


def accepted(
    function: Callable[..., Any],
    fields: Mapping[str, Any],
    field: str,
    options: Mapping[str, Any] = {},  # noqa: B006
) -> dict[str, Any]:
    """The arguments of a function: the fields that its parameters name, and all options.

    A function with `**kwargs` gets all fields.

    Args:
      function: a class or function.
      fields: arguments by name.
      field: the config's field that names the function, for messages.
      options: further arguments, which take precedence over fields.

    Raises:
      InputError: the function needs another argument, or does not take an option.

    Example:
      >>> accepted(lambda seed, size=1: None, {"seed": 0, "name": "x"}, "config.data.source")
      {'seed': 0}
    """
    name = getattr(function, "__name__", function)
    # The signature of an nnx.Module's class is that of Flax's metaclass.
    is_class = inspect.isclass(function)
    signature = inspect.signature(function.__init__ if is_class else function)
    parameters = list(signature.parameters.values())[1 if is_class else 0 :]
    given = {**fields, **options}
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    missing = [p.name for p in named if p.default is p.empty and p.name not in given]
    if missing:
        raise InputError(
            f"{field}: {name} needs {', '.join(missing)}; expected parameters among "
            f"{', '.join(sorted(given))}"
        )
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return given
    taken = {p.name for p in named}
    unknown = sorted(options.keys() - taken)
    if unknown:
        raise InputError(
            f"{field.rpartition('.')[0]}.options has {', '.join(unknown)}, which {name} does not take; "
            f"expected names among {', '.join(sorted(taken))}"
        )
    return {name: value for name, value in given.items() if name in taken}
