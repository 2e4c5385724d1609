"""An LSTM layer as JAX primitives: what each platform computes, and what each transformation makes of it.

- `lstm` runs a layer. `lstm_saving` also returns records for `lstm_backward`, which computes the gradient.
- `lstm_tangent` is the derivative of `lstm`, linear in the tangents. Its transpose is `lstm_backward`, so
  reverse mode runs the hand-written gradient of the platform's implementation.

The implementation is chosen when a program is lowered for a platform. Forward mode and second derivatives
are those of the plain scan, which JAX differentiates to any order.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from bahdanau_jax.layers import implementations, scan
from bahdanau_jax.layers.layer import Arguments, Layer
from bahdanau_jax.layers.primitive_types import (
    define,
    gradient_types,
    result_types,
    saving_types,
)

ROWS = (0, 0, 1, None, None, None, 1, 1, 1, 1)  # the axis of the batch in each of Arguments


def run(layer: Layer, arguments: Arguments) -> scan.Results:
    """Runs a layer: outputs [batch, time, directions*hidden], and h and c [directions, batch, hidden]."""
    leaves, tree = jax.tree.flatten(arguments)  # no mask and no scale: no leaves
    outputs, h, c = lstm_p.bind(*leaves, layer=layer, tree=tree, mapped=())
    return outputs, h, c


# Parameters of the primitives:
#   layer, tree: settings, and the structure of Arguments.
#   mapped: for each operand, whether it has an axis in front over which the primitive is mapped (`vmap` with
#     one set of weights each). All results have it then. Empty: no operand has it.
#   moved: of lstm_tangent, the positions of the arguments whose tangents follow the arguments and records.


def _forward(*operands, layer: Layer, tree, implementation: str):
    return implementations.run(implementation, layer, jax.tree.unflatten(tree, operands))


def _saving(*operands, layer: Layer, tree, implementation: str):
    arguments = jax.tree.unflatten(tree, operands)
    results, records = implementations.run_saving(implementation, layer, arguments)
    return *results, *records


def _backward(*operands, layer: Layer, tree, implementation: str):
    leaves, rest = operands[: tree.num_leaves], operands[tree.num_leaves :]
    arguments, gradients = jax.tree.unflatten(tree, leaves), rest[-3:]
    return implementations.gradients(implementation, layer, arguments, rest[:-3], gradients)


def _differentiable(tree) -> tuple[int, ...]:
    """The positions of the operands that get a gradient."""
    return jax.tree.unflatten(tree, range(tree.num_leaves)).differentiable


def _with(operands: Sequence, positions: Sequence[int], values: Sequence) -> list:
    """The operands with other values at these positions."""
    operands = list(operands)
    for position, value in zip(positions, values, strict=True):
        operands[position] = value
    return operands


def _over(mapped: tuple[bool, ...], function: Callable, *, loop: bool = False) -> Callable:
    """Maps a function of operands over their axes in front, one after the other if `loop`."""
    if not mapped:
        return function
    if not loop:
        return jax.vmap(function, in_axes=[0 if m else None for m in mapped])
    positions = [n for n, m in enumerate(mapped) if m]

    def looped(*operands):
        def one(values):
            return tuple(function(*_with(operands, positions, values)))

        return jax.lax.map(one, [operands[n] for n in positions])

    return looped


# --- the derivatives, in terms of the plain scan --------------------------------------------------------


def _plain_tangent(*operands, layer: Layer, tree, mapped, moved):
    def one(*operands):
        def of_moved(*values):
            leaves = _with(operands[: tree.num_leaves], moved, values)
            return scan.run(layer, jax.tree.unflatten(tree, leaves))

        return jax.jvp(of_moved, tuple(operands[n] for n in moved), operands[-len(moved) :])[1]

    return _over(mapped, one)(*operands)


def _plain_backward(*operands, layer: Layer, tree, mapped):
    def one(*operands):
        def of_moved(*values):
            leaves = _with(operands[: tree.num_leaves], positions, values)
            return scan.run(layer, jax.tree.unflatten(tree, leaves))

        positions = _differentiable(tree)
        return jax.vjp(of_moved, *[operands[n] for n in positions])[1](operands[-3:])

    return _over(mapped, one)(*operands)


def _lstm_jvp(primals, tangents, *, layer, tree, mapped):
    params: Any = dict(layer=layer, tree=tree)
    results = saving_p.bind(*primals, mapped=mapped, **params)
    records = results[3:]
    moved = tuple(n for n in _differentiable(tree) if type(tangents[n]) is not ad.Zero)
    if mapped:
        mapped = (*mapped, *[True] * len(records), *(mapped[n] for n in moved))
    moving = [tangents[n] for n in moved]
    params |= dict(mapped=mapped, moved=moved)
    return results, tangent_p.bind(*primals, *records, *moving, **params)


def _forward_jvp(primals, tangents, **params):
    results, moving = _lstm_jvp(primals, tangents, **params)
    return results[:3], moving


def _saving_jvp(primals, tangents, **params):
    results, moving = _lstm_jvp(primals, tangents, **params)
    # Nothing but the gradient reads the records, and it has its derivatives from the arguments.
    still = [ad.Zero(jax.typeof(record).to_tangent_aval()) for record in results[3:]]
    return results, [*moving, *still]


def _tangent_transpose(gradients, *operands, layer, tree, mapped, moved):
    known = operands[: -len(moved)]
    gradients = [ad.instantiate_zeros(x) for x in gradients]
    every = mapped and (*mapped[: -len(moved)], True, True, True)
    results = backward_p.bind(*known, *gradients, layer=layer, tree=tree, mapped=every)
    results = dict(zip(_differentiable(tree), results, strict=True))
    wanted = _unmap([results[n] for n in moved], mapped[-len(moved) :])
    return [*[None] * len(known), *wanted]


def _backward_transpose(tangents, *operands, layer, tree, mapped):
    known, moved = operands[:-3], _differentiable(tree)
    tangents = [ad.instantiate_zeros(x) for x in tangents]
    every = mapped and (*mapped[:-3], *[True] * len(moved))
    params: Any = dict(layer=layer, tree=tree, mapped=every, moved=moved)
    return [*[None] * len(known), *_unmap(tangent_p.bind(*known, *tangents, **params), mapped[-3:])]


def _unmap(results: Sequence, mapped: Sequence[bool]) -> list:
    """Sums the gradients of operands without an axis in front over that axis."""
    if not mapped:
        return list(results)
    return [x if m else jnp.sum(x, axis=0) for x, m in zip(results, mapped, strict=True)]


def _plain_jvp(primitive: Primitive, plain: Callable) -> Callable:
    """The rule of a primitive that has the derivative of the function `plain`."""

    def rule(primals, tangents, **params):
        moved = [n for n, t in enumerate(tangents) if type(t) is not ad.Zero]

        def of_moved(*values):
            return tuple(plain(*_with(primals, moved, values), **params))

        moving = jax.jvp(of_moved, [primals[n] for n in moved], [tangents[n] for n in moved])[1]
        return primitive.bind(*primals, **params), moving

    return rule


# --- vmap -----------------------------------------------------------------------------------------------


def _lstm_batch(operands, dims, *, layer, tree, mapped):
    axes = jax.tree.unflatten(tree, dims)
    weights = axes.kernel, axes.recurrent_kernel, axes.bias
    if mapped or any(axis is not None for axis in weights):
        return _map_batch(lstm_p)(operands, dims, layer=layer, tree=tree, mapped=mapped)
    # One set of weights: the mapped axis becomes part of the batch.
    size = next(x.shape[d] for x, d in zip(operands, dims, strict=True) if d is not None)
    rows = [
        n
        for n, x in zip(ROWS, jax.tree.unflatten(tree, range(len(dims))), strict=True)
        if x is not None
    ]
    folded = []
    for x, axis, row in zip(operands, dims, rows, strict=True):
        if row is not None:
            x = jnp.broadcast_to(x[None], (size, *x.shape)) if axis is None else x
            x = jnp.moveaxis(x, axis or 0, row)
            x = x.reshape(*x.shape[:row], size * x.shape[row + 1], *x.shape[row + 2 :])
        folded.append(x)
    results = lstm_p.bind(*folded, layer=layer, tree=tree, mapped=())
    split = [
        x.reshape(*x.shape[:row], size, x.shape[row] // size, *x.shape[row + 1 :])
        for x, row in zip(results, (0, 1, 1), strict=True)
    ]
    return split, (0, 1, 1)


def _map_batch(primitive: Primitive) -> Callable:
    def rule(operands, dims, *, mapped, **params):
        operands = [
            x if d is None else jnp.moveaxis(x, d, 0) for x, d in zip(operands, dims, strict=True)
        ]
        in_front = tuple(d is not None for d in dims)
        if mapped:  # mapped twice
            one = partial(primitive.bind, mapped=mapped, **params)
            results = _over(in_front, one, loop=True)(*operands)
        else:
            results = primitive.bind(*operands, mapped=in_front, **params)
        return results, [0] * len(results)

    return rule


def _tangent_batch(operands, dims, **params):
    results = jax.vmap(partial(_plain_tangent, **params), in_axes=list(dims))(*operands)
    return results, [0] * len(results)


# --- lowering -------------------------------------------------------------------------------------------


def _lower(primitive: Primitive, function: Callable) -> None:
    """Lowers a primitive to the implementation of the platform."""

    def rule(ctx, *operands, platform: str | None, layer: Layer, tree, mapped):
        exporting = ctx.module_context.lowering_parameters.for_export
        name = implementations.choose(layer, platform, exporting=exporting)
        one = partial(function, layer=layer, tree=tree, implementation=name)
        mapping = _over(mapped, one, loop=name != "scan")
        return mlir.lower_fun(lambda *x: tuple(mapping(*x)))(ctx, *operands)

    for platform in ("cpu", "cuda", None):
        mlir.register_lowering(primitive, partial(rule, platform=platform), platform=platform)


lstm_p = define("lstm", result_types)
saving_p = define("lstm_saving", saving_types)
tangent_p = define("lstm_tangent", result_types)
backward_p = define("lstm_backward", gradient_types)

_lower(lstm_p, _forward)
_lower(saving_p, _saving)
_lower(backward_p, _backward)
mlir.register_lowering(tangent_p, mlir.lower_fun(_plain_tangent))

ad.primitive_jvps[lstm_p] = _forward_jvp
ad.primitive_jvps[saving_p] = _saving_jvp
ad.primitive_jvps[tangent_p] = _plain_jvp(tangent_p, _plain_tangent)
ad.primitive_jvps[backward_p] = _plain_jvp(backward_p, _plain_backward)
ad.primitive_transposes[tangent_p] = _tangent_transpose
ad.primitive_transposes[backward_p] = _backward_transpose

batching.primitive_batchers[lstm_p] = _lstm_batch
batching.primitive_batchers[saving_p] = _map_batch(saving_p)
batching.primitive_batchers[backward_p] = _map_batch(backward_p)
batching.primitive_batchers[tangent_p] = _tangent_batch
