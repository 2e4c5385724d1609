"""The types of the results of an LSTM layer's primitives, and how they evaluate outside `jax.jit`."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.sharding import NamedSharding, PartitionSpec

from bahdanau_jax.layers import implementations
from bahdanau_jax.layers.layer import Arguments, Layer

Types = list[tuple[tuple, Any]]  # shapes and dtypes


def result_types(layer: Layer, arguments: Arguments) -> Types:
    """Of outputs, h and c."""
    batch, time, _ = arguments.inputs.shape
    directions, hidden, _ = arguments.recurrent_kernel.shape
    state = (directions, batch, hidden), layer.carry_dtype
    return [((batch, time, directions * hidden), layer.dtype), state, state]


def saving_types(layer: Layer, arguments: Arguments) -> Types:
    """Of outputs, h, c and the records."""
    return result_types(layer, arguments) + implementations.record_types(layer, arguments)


def gradient_types(layer: Layer, arguments: Arguments) -> Types:
    """Of the gradients."""
    return [(x.shape, x.dtype) for x in arguments.differentiable]


def _abstract(types: Callable) -> Callable:
    def rule(*avals, layer: Layer, tree, mapped, moved=()):
        first = avals[0]
        leaves, size = avals[: tree.num_leaves], ()
        if mapped:
            size = next(x.shape[:1] for x, m in zip(avals, mapped, strict=True) if m)
            leaves = [
                jax.ShapeDtypeStruct(x.shape[1:] if m else x.shape, x.dtype)
                for x, m in zip(leaves, mapped[: tree.num_leaves], strict=True)
            ]

        def aval(shape, dtype):
            sharding = NamedSharding(first.sharding.mesh, PartitionSpec(*[None] * len(shape)))
            return first.update(shape=shape, dtype=dtype, weak_type=False, sharding=sharding)

        results = types(layer, jax.tree.unflatten(tree, leaves))
        return [aval((*size, *shape), dtype) for shape, dtype in results]

    return rule


def define(name: str, types: Callable) -> Primitive:
    """Makes a primitive whose results have these types."""
    primitive = Primitive(name)
    primitive.multiple_results = True
    primitive.def_abstract_eval(_abstract(types))
    compiled = jax.jit(primitive.bind, static_argnames=("layer", "tree", "mapped", "moved"))

    def evaluate(*operands, **params):
        with jax.disable_jit(False):
            return compiled(*operands, **params)

    primitive.def_impl(evaluate)
    return primitive
