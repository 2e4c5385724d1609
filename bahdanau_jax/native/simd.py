"""What numba lacks for a fast kernel: raw memory, SIMD vectors, a register-blocked product, atomics.

Addresses are plain int64. `vec` is one vector register of LANES float32; it supports + - * /.
"""

import operator
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from bahdanau_jax.native.build import f32, i64, njit

_features = binding.get_host_cpu_features()
# Floats in a vector register, and rows of a product's tile: rows * 4 vectors accumulate in registers,
# of which AVX-512 and NEON have 32, AVX2 16.
if _features.get("avx512f"):
    LANES, TILE_ROWS = 16, 6
elif _features.get("avx2") and _features.get("fma"):
    LANES, TILE_ROWS = 8, 3
else:
    LANES, TILE_ROWS = 4, 6 if _features.get("neon") else 3
LANES = np.int64(LANES)  # not int: numba would compile callees anew for every literal
VECTORS = np.int64(
    4
)  # vectors in a row of a tile: for the cell these are the four gates of LANES hidden units
PANEL = VECTORS * LANES  # floats in a row of a tile
ROW_BYTES = 4 * PANEL

_f32, _i64, _i32 = ir.FloatType(), ir.IntType(64), ir.IntType(32)
_vec_ir = ir.VectorType(_f32, int(LANES))


class _VecType(types.Type):
    def __init__(self):
        super().__init__(name=f"float32x{LANES}")


vec = _VecType()


@register_model(_VecType)
class _VecModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        super().__init__(manager, fe_type, _vec_ir)


def _emits(result, *argument_types):
    """Decorates emit(builder, *values) -> value: makes it a function callable from numba code."""

    def decorate(emit):
        n = len(argument_types)
        names = ", ".join(f"a{i}" for i in range(n))

        def codegen(context, builder, sig, args):
            value = emit(builder, *args)
            return context.get_dummy_value() if result is types.void else value

        scope = {"answer": (result(*argument_types), codegen)}
        exec(
            f"def {emit.__name__}(typingctx, {names}):\n  return answer", scope
        )  # numba reads the arity
        return intrinsic(scope[emit.__name__])

    return decorate


def _pointer(builder, address, kind):
    return builder.inttoptr(address, ir.PointerType(kind))


def _load(builder, address, kind, align=4):
    return builder.load(_pointer(builder, address, kind), align=align)


def _store(builder, address, value, align=4):
    builder.store(value, _pointer(builder, address, value.type), align=align)


def _splat(builder, scalar):
    v = builder.insert_element(ir.Constant(_vec_ir, ir.Undefined), scalar, ir.Constant(_i32, 0))
    zeros = ir.Constant(ir.VectorType(_i32, int(LANES)), [0] * int(LANES))
    return builder.shuffle_vector(v, v, zeros)


def _fma(builder, a, b, c):
    name = f"llvm.fma.v{LANES}f32"
    fn = builder.module.globals.get(name) or ir.Function(
        builder.module, ir.FunctionType(_vec_ir, [_vec_ir] * 3), name
    )
    return builder.call(fn, [a, b, c])


def _byte_offset(builder, base, index, size):
    return builder.add(base, builder.mul(index, ir.Constant(_i64, size)))


@_emits(vec, i64)
def load(b, address):
    return _load(b, address, _vec_ir)


@_emits(types.void, i64, vec)
def store(b, address, value):
    _store(b, address, value)


@_emits(f32, i64)
def loadf(b, address):
    return _load(b, address, _f32)


@_emits(types.void, i64, f32)
def storef(b, address, value):
    _store(b, address, value)


@_emits(i64, i64)
def peek(b, address):
    """The int64 at address."""
    return _load(b, address, _i64, 8)


@_emits(types.void, i64, i64)
def poke(b, address, value):
    _store(b, address, value, 8)


@_emits(types.void, i64, types.int32)
def poke32(b, address, value):
    _store(b, address, value)


@_emits(types.uint8, i64)
def peek8(b, address):
    return _load(b, address, ir.IntType(8), 1)


@_emits(types.int32, i64)
def peek32(b, address):
    return _load(b, address, _i32)


@_emits(types.void, i64)
def prefetch(b, address):
    kind = ir.PointerType(ir.IntType(8))
    fn = b.module.globals.get("llvm.prefetch.p0") or ir.Function(
        b.module, ir.FunctionType(ir.VoidType(), [kind, _i32, _i32, _i32]), "llvm.prefetch.p0"
    )
    b.call(fn, [b.inttoptr(address, kind)] + [ir.Constant(_i32, n) for n in (0, 2, 1)])


@_emits(vec, f32)
def splat(b, scalar):
    return _splat(b, scalar)


@_emits(vec, vec, vec, vec)
def fma(b, x, y, z):
    """x * y + z."""
    return _fma(b, x, y, z)


@_emits(vec, vec, f32)
def clip(b, x, limit):
    """x inside [-limit, limit]; NaN stays NaN."""
    high = _splat(b, limit)
    low = _splat(b, b.fneg(limit))
    x = b.select(b.fcmp_ordered(">", x, high), high, x)
    return b.select(b.fcmp_ordered("<", x, low), low, x)


@_emits(i64, i64, i64)
def atomic_add(b, address, amount):
    """Adds to the int64 at address, returns what was there."""
    return b.atomic_rmw("add", _pointer(b, address, _i64), amount, "seq_cst")


@_emits(i64, i64, i64)
def call(b, function, argument):
    """Calls the C function at address `function`: int64 f(int64)."""
    return b.call(_pointer(b, function, ir.FunctionType(_i64, [_i64])), [argument])


def symbol_address(name):
    """A numba function that returns the address of the C symbol `name`."""

    @_emits(i64)
    def address(b):
        fn = b.module.globals.get(name) or ir.Function(
            b.module, ir.FunctionType(_i64, [_i64]), name
        )
        return b.ptrtoint(fn, _i64)

    return address


@_emits(types.void)
def apart(b):
    """Keeps the function it stands in from being inlined: compiling takes a third of the time."""
    b.function.attributes.add("noinline")


def _operator(symbol, method):
    @infer_global(symbol)
    class _(ConcreteTemplate):
        cases = [signature(vec, vec, vec)]

    @lower_builtin(symbol, vec, vec)
    def _(context, builder, sig, args):
        return getattr(builder, method)(*args)


_methods = {
    operator.add: "fadd",
    operator.sub: "fsub",
    operator.mul: "fmul",
    operator.truediv: "fdiv",
}
for _symbol, _method in _methods.items():
    _operator(_symbol, _method)


@njit
def tanh(x):
    """Rational approximation (the one Eigen and XLA use); exactly +-1 when saturated."""
    x = clip(x, f32(9.1))
    s = x * x
    p = fma(s, splat(f32(1.394553628e-8)), splat(f32(2.102733560e-5)))
    p = fma(s, p, splat(f32(3.520756727e-3)))
    p = fma(s, p, splat(f32(1.340216100e-1)))
    p = fma(s, p, splat(f32(1.0)))
    q = fma(s, splat(f32(8.015776984e-7)), splat(f32(3.326951409e-4)))
    q = fma(s, q, splat(f32(2.597254514e-2)))
    q = fma(s, q, splat(f32(4.673548340e-1)))
    q = fma(s, q, splat(f32(1.0)))
    return clip(x * p / q, f32(1.0))


@njit
def sigmoid(x):
    half = splat(f32(0.5))
    return fma(tanh(x * half), half, half)


def _tile(rows, transposed):
    """acc[r, :] += sum over k of a[r, k] * b[k, :] for `rows` rows, PANEL columns, held in registers.

    acc, b: addresses with byte strides. a: address of a table of row addresses; a[r, k] is float k of
    row r, or, transposed, float r of row k.
    """

    @_emits(types.void, *[i64] * 7)
    def tile(b, acc, acc_stride, table, offset, b0, b_stride, k):
        zero = ir.Constant(_i64, 0)
        at = [(r, v) for r in range(rows) for v in range(VECTORS)]
        cells = [
            b.add(_byte_offset(b, acc, acc_stride, r), ir.Constant(_i64, int(4 * LANES * v)))
            for r, v in at
        ]
        starts = [_load(b, c, _vec_ir) for c in cells]
        if not transposed:
            row = [b.add(table, ir.Constant(_i64, 8 * r)) for r in range(rows)]
            a_rows = [b.add(_load(b, address, _i64, 8), offset) for address in row]
        entry = b.block
        loop = b.append_basic_block("tile")
        done = b.append_basic_block("tile_done")
        b.cbranch(b.icmp_signed(">", k, zero), loop, done)

        b.position_at_end(loop)
        index = b.phi(_i64)
        sums = [b.phi(_vec_ir) for _ in cells]
        b_row = b.add(b0, b.mul(index, b_stride))
        if transposed:
            a_row = b.add(_load(b, _byte_offset(b, table, index, 8), _i64, 8), offset)

        def broadcast(r):
            if transposed:
                at = b.add(a_row, ir.Constant(_i64, 4 * r))
            else:
                at = _byte_offset(b, a_rows[r], index, 4)
            return _splat(b, _load(b, at, _f32))

        def column(v):
            return _load(b, b.add(b_row, ir.Constant(_i64, int(4 * LANES * v))), _vec_ir)

        # What LLVM keeps in registers follows the order here. Beside the sums there are 8 left of
        # AVX-512's 32, so all columns and one broadcast; 4 of AVX2's 16, so the broadcasts and one column.
        new: list[Any] = [None] * len(cells)
        if LANES == 16:
            columns = [column(v) for v in range(VECTORS)]
            for r in range(rows):
                a = broadcast(r)
                for v in range(VECTORS):
                    new[r * VECTORS + v] = _fma(b, a, columns[v], sums[r * VECTORS + v])
        else:
            broadcasts = [broadcast(r) for r in range(rows)]
            for v in range(VECTORS):
                w = column(v)
                for r in range(rows):
                    new[r * VECTORS + v] = _fma(b, broadcasts[r], w, sums[r * VECTORS + v])
        following = b.add(index, ir.Constant(_i64, 1))
        b.cbranch(b.icmp_signed("<", following, k), loop, done)
        index.add_incoming(zero, entry)
        index.add_incoming(following, loop)
        for phi, start, value in zip(sums, starts, new, strict=True):
            phi.add_incoming(start, entry)
            phi.add_incoming(value, loop)

        b.position_at_end(done)
        results = [b.phi(_vec_ir) for _ in cells]
        for cell, start, value, result in zip(cells, starts, new, results, strict=True):
            result.add_incoming(start, entry)
            result.add_incoming(value, loop)
            _store(b, cell, result)

    return tile


def any_tile(transposed):
    """A numba function: the tile for `rows` rows, 1 <= rows <= TILE_ROWS."""
    names = {f"tile{r}": _tile(r, transposed) for r in range(1, TILE_ROWS + 1)}
    body = "".join(
        f"  if rows == {r}:\n    tile{r}(acc, acc_stride, table, offset, b, b_stride, k)\n    return\n"
        for r in range(TILE_ROWS, 0, -1)
    )
    exec(f"def tile(rows, acc, acc_stride, table, offset, b, b_stride, k):\n{body}", names)
    return njit(names["tile"])
