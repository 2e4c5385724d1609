"""The type of a model's variables that gradient descent leaves as they are."""

from flax import nnx


class Fixed(nnx.Variable):
    """A variable that is saved with the model and not trained by gradient descent."""


def fix(module: nnx.Module) -> None:
    """Makes each parameter of a module, but not of the modules in it, `Fixed`.

    Example:
      >>> layer = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> fix(layer)
      >>> nnx.state(layer, nnx.Param)
      State({})
    """
    for name, value in list(vars(module).items()):
        if isinstance(value, nnx.Param):
            setattr(module, name, Fixed(value[...]))
