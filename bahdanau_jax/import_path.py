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
    if not colon or not name.isidentifier() or not all(map(str.isidentifier, module_name.split("."))):
        raise InputError(f"{field} is {path!r}; expected an import path, \"package.module:Name\"")
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
        raise InputError(f"{field} is {path!r}; {module_name} {what} {name}; expected a class or function")
    return found


def accepted(function: Callable[..., Any], fields: Mapping[str, Any], field: str) -> dict[str, Any]:
    """The fields that the parameters of a function name; all of them if it takes `**kwargs`.

    Args:
      function: a class or function.
      fields: arguments by name.
      field: the config's field that names the function, for messages.

    Raises:
      InputError: the function needs an argument that `fields` does not hold.

    Example:
      >>> accepted(lambda seed, size=1: None, {"seed": 0, "name": "x"}, "config.data.source")
      {'seed': 0}
    """
    # The signature of an nnx.Module's class is that of Flax's metaclass.
    is_class = inspect.isclass(function)
    parameters = list(
        inspect.signature(function.__init__ if is_class else function).parameters.values()
    )[1 if is_class else 0 :]
    missing = [
        p.name
        for p in parameters
        if p.default is p.empty
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and p.name not in fields
    ]
    if missing:
        name = getattr(function, "__name__", function)
        raise InputError(
            f"{field}: {name} needs {', '.join(missing)}; expected parameters among "
            f"{', '.join(sorted(fields))}"
        )
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return dict(fields)
    return {name: fields[name] for name in (p.name for p in parameters) if name in fields}
