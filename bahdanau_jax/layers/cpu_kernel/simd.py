"""Low-level operations for numba code: raw memory, SIMD vectors and atomics.

Addresses are plain int64. `vec` is a vector register of LANES float32, with + - * /.
"""

import operator
import platform

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from bahdanau_jax.layers.cpu_kernel.build import cpu_features, f32, i64


def tile_shape(features: frozenset[str], machine: str) -> tuple[int, int]:
    """Returns the floats in a vector register, and the rows of a product's tile.

    A tile accumulates 4 vectors a row in registers: AVX-512 and NEON have 32, AVX2 and SSE have 16.
    """
    if "avx512f" in features:
        return 16, 6
    if {"avx2", "fma"} <= features:
        return 8, 3
    # Every arm64 CPU has NEON, but LLVM's list of features is empty on macOS.
    return 4, 6 if machine.lower() in ("arm64", "aarch64") else 3


LANES, TILE_ROWS = tile_shape(cpu_features(), platform.machine())
IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
LANES = np.int64(LANES)  # an int is a literal to numba, which would compile callees again for each
VECTORS = np.int64(4)  # vectors in a row of a tile: the four gates of LANES hidden units
PANEL = VECTORS * LANES  # floats in a row of a tile
INT16_ONE = np.float32(1 << 12)  # the int16 that stands for an input or state of 1
ROW_BYTES = 4 * PANEL

f32_ir, i64_ir, i32_ir, i16_ir = ir.FloatType(), ir.IntType(64), ir.IntType(32), ir.IntType(16)
vec_ir, ivec_ir = ir.VectorType(f32_ir, int(LANES)), ir.VectorType(i32_ir, int(LANES))


class _VecType(types.Type):
    def __init__(self):
        super().__init__(name=f"float32x{LANES}")


vec = _VecType()


@register_model(_VecType)
class _VecModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        super().__init__(manager, fe_type, vec_ir)


def emits(result, *argument_types):
    """Decorator: makes `emit(builder, *values) -> value`, which emits LLVM IR, callable from numba code."""

    def decorate(emit):
        n = len(argument_types)
        names = ", ".join(f"a{i}" for i in range(n))

        def codegen(context, builder, sig, args):
            value = emit(builder, *args)
            return context.get_dummy_value() if result is types.void else value

        scope = {"answer": (result(*argument_types), codegen)}
        # numba reads the number of parameters from the signature.
        exec(f"def {emit.__name__}(typingctx, {names}):\n  return answer", scope)
        return intrinsic(scope[emit.__name__])

    return decorate


def _pointer(builder, address, kind):
    return builder.inttoptr(address, ir.PointerType(kind))


def emit_load(builder, address, kind, align=4):
    return builder.load(_pointer(builder, address, kind), align=align)


def emit_store(builder, address, value, align=4):
    builder.store(value, _pointer(builder, address, value.type), align=align)


def emit_splat(builder, scalar):
    kind = ir.VectorType(scalar.type, int(LANES))
    v = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(i32_ir, 0))
    return builder.shuffle_vector(v, v, ir.Constant(ivec_ir, [0] * int(LANES)))


def external(builder, name, result, arguments):
    """A function of LLVM or C, declared once in a module."""
    found = builder.module.globals.get(name)
    return found or ir.Function(builder.module, ir.FunctionType(result, arguments), name)


def emit_fma(builder, a, b, c):
    fn = external(builder, f"llvm.fma.v{LANES}f32", vec_ir, [vec_ir] * 3)
    return builder.call(fn, [a, b, c])


# Intrinsics that multiply pairs of int16 and add the two products, by the lanes of int32.
_MADD = {
    4: "llvm.x86.sse2.pmadd.wd",
    8: "llvm.x86.avx2.pmadd.wd",
    16: "llvm.x86.avx512.pmaddw.d.512",
}


def emit_madd(builder, a, b, c):
    """a[2i] * b[2i] + a[2i+1] * b[2i+1] + c[i]. Each int32 of a and b holds two int16; c holds int32."""
    pairs = ir.VectorType(i16_ir, 2 * int(LANES))
    a, b = builder.bitcast(a, pairs), builder.bitcast(b, pairs)
    if IS_X86:
        fn = external(builder, _MADD[int(LANES)], ivec_ir, [pairs] * 2)
        return builder.add(builder.call(fn, [a, b]), c)
    for first in (0, 1):
        chosen = ir.Constant(ivec_ir, list(range(first, 2 * int(LANES), 2)))
        x, y = (builder.sext(builder.shuffle_vector(v, v, chosen), ivec_ir) for v in (a, b))
        c = builder.add(builder.mul(x, y), c)
    return c


def keep_rolled(module, branch):
    """Keeps LLVM from unrolling the loop that this branch closes."""
    choice = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    loop = module.add_metadata([choice, ir.Constant(i32_ir, len(module.metadata))])
    loop.operands = (loop, choice)  # a loop's metadata begins with itself
    branch.set_metadata("llvm.loop", loop)


def byte_offset(builder, base, index, size):
    return builder.add(base, builder.mul(index, ir.Constant(i64_ir, size)))


@emits(vec, i64)
def load(b, address):
    return emit_load(b, address, vec_ir)


@emits(types.void, i64, vec)
def store(b, address, value):
    emit_store(b, address, value)


@emits(types.void, i64, vec)
def store_past_caches(b, address, value):
    """Stores what is not read soon; the address is a multiple of the vector's size. Needs a `fence` after."""
    to = b.store(value, _pointer(b, address, value.type), align=int(4 * LANES))
    to.set_metadata("nontemporal", b.module.add_metadata([ir.Constant(i32_ir, 1)]))


@emits(types.void)
def fence(b):
    """Lets other threads see everything that this one stored."""
    b.fence("seq_cst")


@emits(f32, i64)
def loadf(b, address):
    return emit_load(b, address, f32_ir)


@emits(types.void, i64, f32)
def storef(b, address, value):
    emit_store(b, address, value)


@emits(vec, i64)
def load_int32(b, address):
    """Reads LANES int32 as float32."""
    return b.sitofp(emit_load(b, address, ivec_ir), vec_ir)


def _rounded(b, value):
    fn = external(b, f"llvm.rint.v{LANES}f32", vec_ir, [vec_ir])
    return b.fptosi(b.call(fn, [value]), ivec_ir)


@emits(types.void, i64, vec)
def store_int16(b, address, value):
    """Rounds to int16. The values must fit."""
    emit_store(b, address, b.trunc(_rounded(b, value), ir.VectorType(i16_ir, int(LANES))), 2)


@emits(types.void, i64, vec, vec)
def store_pairs(b, address, first, second):
    """Rounds to int16 and writes the numbers of both in turn. The values must fit."""
    low = b.and_(_rounded(b, first), ir.Constant(ivec_ir, [0xFFFF] * int(LANES)))
    high = b.shl(_rounded(b, second), ir.Constant(ivec_ir, [16] * int(LANES)))
    emit_store(b, address, b.or_(low, high))


@emits(i64, i64)
def peek(b, address):
    """Reads the int64 at address."""
    return emit_load(b, address, i64_ir, 8)


@emits(types.void, i64, i64)
def poke(b, address, value):
    emit_store(b, address, value, 8)


@emits(types.void, i64, types.int32)
def poke32(b, address, value):
    emit_store(b, address, value)


@emits(types.void, i64, types.int16)
def poke16(b, address, value):
    emit_store(b, address, value, 2)


@emits(types.uint8, i64)
def peek8(b, address):
    return emit_load(b, address, ir.IntType(8), 1)


@emits(types.int16, i64)
def peek16(b, address):
    return emit_load(b, address, i16_ir, 2)


@emits(types.int32, i64)
def peek32(b, address):
    return emit_load(b, address, i32_ir)


def _prefetch(write):
    @emits(types.void, i64)
    def prefetch(b, address):
        kind = ir.PointerType(ir.IntType(8))
        fn = external(b, "llvm.prefetch.p0", ir.VoidType(), [kind, i32_ir, i32_ir, i32_ir])
        b.call(fn, [b.inttoptr(address, kind)] + [ir.Constant(i32_ir, n) for n in (write, 2, 1)])

    return prefetch


prefetch, prefetch_to_write = _prefetch(0), _prefetch(1)


@emits(vec, f32)
def splat(b, scalar):
    return emit_splat(b, scalar)


@emits(vec, vec, vec, vec)
def fma(b, x, y, z):
    """x * y + z."""
    return emit_fma(b, x, y, z)


@emits(vec, vec, vec)
def maximum(b, x, y):
    return b.select(b.fcmp_ordered(">", x, y), x, y)


@emits(vec, vec, f32)
def clip(b, x, limit):
    """x clipped to [-limit, limit]. NaN stays NaN."""
    high = emit_splat(b, limit)
    low = emit_splat(b, b.fneg(limit))
    x = b.select(b.fcmp_ordered(">", x, high), high, x)
    return b.select(b.fcmp_ordered("<", x, low), low, x)


@emits(vec, vec, vec)
def times_power_of_two(b, x, shifted):
    """x * 2**n, where `shifted` is the whole number n plus 1.5 * 2**23: its last bits are those of n."""
    exponent = b.shl(b.bitcast(shifted, ivec_ir), ir.Constant(ivec_ir, [23] * int(LANES)))
    return b.bitcast(b.add(b.bitcast(x, ivec_ir), exponent), vec_ir)


@emits(i64, i64, i64)
def atomic_add(b, address, amount):
    """Adds to the int64 at address and returns its old value."""
    return b.atomic_rmw("add", _pointer(b, address, i64_ir), amount, "seq_cst")


@emits(i64, i64, i64)
def call(b, function, argument):
    """Calls the C function int64 f(int64) at address `function`."""
    return b.call(_pointer(b, function, ir.FunctionType(i64_ir, [i64_ir])), [argument])


def symbol_address(name):
    """Makes a numba function that returns the address of the C symbol `name`."""

    @emits(i64)
    def address(b):
        return b.ptrtoint(external(b, name, i64_ir, [i64_ir]), i64_ir)

    return address


@emits(types.void)
def apart(b):
    """Prevents inlining of the calling function, which cuts compile time to a third."""
    b.function.attributes.add("noinline")


def _operator(symbol, method):
    @infer_global(symbol)
    class _(ConcreteTemplate):
        cases = [signature(vec, vec, vec)]

    @lower_builtin(symbol, vec, vec)
    def _(context, builder, sig, args):
        return getattr(builder, method)(*args)


for _symbol, _method in zip(
    (operator.add, operator.sub, operator.mul, operator.truediv),
    ("fadd", "fsub", "fmul", "fdiv"),
    strict=True,
):
    _operator(_symbol, _method)
