"""A BiLSTM and an attention for prediction on a CPU. They have no derivative.

Inputs may be looked up by token id, and products may be of int16.

The first layer of a text classifier multiplies each token's vector by the same kernel. Here the product of
each word in the vocabulary is computed once, and a token's product is looked up. For the notebook's network
this saves a third of the arithmetic.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from bahdanau_jax.layers import cpu_kernel
from bahdanau_jax.layers.attention import BahdanauAttention
from bahdanau_jax.layers.devices import over_devices, rows_over_devices, vary_alike
from bahdanau_jax.layers.layer import Arguments, Layer
from bahdanau_jax.layers.lstm import BiLSTM
from bahdanau_jax.layers.recurrence import lstm_implementation

PRODUCTS = ("float32", "int16")
TABLE_BYTES = 256 << 20  # of the products of all words


class PredictionBiLSTM(nnx.Module):
    """Predicts what a float32 `BiLSTM` predicts, on the CPU kernel, in less time.

    Args:
      layer: the BiLSTM with the weights. Its dropout is left out.
      vectors: [words, in_features], the vector of each token id. If given, inputs are ids.
      products: "float32", or "int16" to multiply rounded numbers: inputs and states in units of 1/4096,
        weights in units of their column (Vanhoucke, Senior and Mao 2011). Sums, gates and states stay
        float32. The products of `vectors` are not rounded. Other inputs must lie in [-1, 1], as the outputs
        of an LSTM do.

    Raises:
      ValueError: `products` is something else, or the CPU kernel does not compute `layer` here.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> layer = BiLSTM(in_features=3, hidden_features=2, rngs=nnx.Rngs(0))
      >>> faster = PredictionBiLSTM(layer, jnp.ones((10, 3)))
      >>> outputs, (h, c) = faster(jnp.array([[5, 7]]), jnp.array([[True, True]]))
      >>> outputs.shape, h.shape
      ((1, 2, 4), (1, 4))
    """

    def __init__(
        self,
        layer: BiLSTM,
        vectors: Float[Array, "words in"] | None = None,
        *,
        products: str = "float32",
    ):
        if products not in PRODUCTS:
            raise ValueError(f"products is {products!r}; expected one of {', '.join(PRODUCTS)}")
        if why := obstacle(layer):
            raise ValueError(f"prediction with the CPU kernel cannot run here: {why}")
        self.products = products
        self.words = None if vectors is None else len(vectors)
        directions = layer.forward, layer.backward
        weights = [(x.kernel[...], x.recurrent_kernel[...], x.bias[...]) for x in directions]
        kernel, recurrent_kernel, bias = _weights(weights, vectors)
        self.kernel = nnx.Variable(kernel)  # [2, in or words and some more, 4*hidden]
        self.recurrent_kernel = nnx.Variable(recurrent_kernel)
        self.bias = nnx.Variable(bias)

    def __call__(
        self,
        inputs: Float[Array, "batch time in"] | Int[Array, "batch time"],
        mask: Bool[Array, "batch time"],
    ) -> tuple[Float[Array, "batch time 2*hidden"], tuple[Array, Array]]:
        """Runs both directions. Arguments and results are those of `BiLSTM`."""
        if self.words is None:
            inputs = inputs.astype(jnp.float32)
        else:  # an id outside the vocabulary is taken for the nearest one inside, as JAX's gather does
            inputs = jnp.clip(inputs, 0, self.words - 1).astype(jnp.int32)
        zeros = jnp.zeros((2, len(inputs), self.recurrent_kernel.shape[1]), jnp.float32)
        weights = self.kernel[...], self.recurrent_kernel[...], self.bias[...]
        arguments = Arguments(inputs, mask, None, *weights, zeros, zeros)
        run = partial(
            cpu_kernel.run_for_prediction,
            Layer(reverse=False, dtype=jnp.dtype(jnp.float32)),
            int16=self.products == "int16",
        )
        outputs, h, c = over_devices(run)(vary_alike(arguments))
        h, c = (jnp.concatenate([x[0], x[1]], axis=-1) for x in (h, c))
        return outputs, (h, c)


@jax.jit  # one program, where each operation alone would be compiled at the start of every process
def _weights(
    directions: Sequence[tuple[Array, Array, Array]], vectors: Float[Array, "words in"] | None
) -> tuple[Array, Array, Array]:
    """Kernel, recurrent kernel and bias of both directions; with `vectors`, the kernel is their products."""
    # As float32, which the kernel reads: under jax_enable_x64, weights may be float64.
    kernel, recurrent_kernel, bias = (
        jnp.stack(both).astype(jnp.float32) for both in zip(*directions, strict=True)
    )
    if vectors is not None:
        vectors = jnp.asarray(vectors, jnp.float32)
        kernel = jnp.einsum("vf,dfg->dvg", vectors, kernel, precision="highest") + bias[:, None]
        behind = cpu_kernel.rows_behind(recurrent_kernel.shape[1])
        kernel, bias = jnp.pad(kernel, ((0, 0), (0, behind), (0, 0))), jnp.zeros_like(bias)
    return kernel, recurrent_kernel, bias


class PredictionAttention(nnx.Module):
    """Predicts what a float32 `BahdanauAttention` predicts, on the CPU kernel, in less time.

    It has one head and one query for each row. The keys are the values, and finite where masked.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from bahdanau_jax import BahdanauAttention
      >>> attention = BahdanauAttention(query_features=3, key_features=4, units=2, rngs=nnx.Rngs(0))
      >>> faster = PredictionAttention(attention)
      >>> context, weights = faster(jnp.ones((1, 3)), jnp.ones((1, 2, 4)), mask=jnp.ones((1, 2), bool))
      >>> context.shape, weights.tolist()
      ((1, 4), [[0.5, 0.5]])
    """

    def __init__(self, attention: BahdanauAttention):
        self.query_kernel, self.key_kernel, self.bias, self.scorer = (
            nnx.Variable(jnp.asarray(x, jnp.float32))
            for x in (
                attention.query_kernel[...],
                attention.key_kernel[...],
                attention.bias[...],
                attention.score_kernel[...],
            )
        )

    def __call__(
        self,
        query: Float[Array, "batch query_features"],
        keys: Float[Array, "batch time key_features"],
        mask: Bool[Array, "batch time"] | None = None,
    ) -> tuple[Float[Array, "batch key_features"], Float[Array, "batch time"]]:
        """Returns the context and the weights, as `BahdanauAttention` does."""
        mask = jnp.ones(keys.shape[:2], bool) if mask is None else mask
        query = query @ self.query_kernel[...] + self.bias[...][None]
        arguments = keys, mask, self.key_kernel[...], query, self.scorer[...]
        run = rows_over_devices(cpu_kernel.attend, (True, True, False, True, False))
        return run(*vary_alike(arguments))


def obstacle(layer: BiLSTM) -> str | None:
    """Returns why a `PredictionBiLSTM` cannot take this layer's place here, or None if it can."""
    one = layer.forward
    dtype = jax.dtypes.canonicalize_dtype(one.dtype or jnp.float32)
    if dtype != jnp.float32:
        return f"the dtype is {dtype}; expected float32"
    name, why = lstm_implementation(one.implementation)
    return None if name == "native" else why


def fits_table(layer: BiLSTM, words: int) -> bool:
    """Whether the table of the products of so many words takes at most `TABLE_BYTES`."""
    return words * 8 * layer.forward.bias.size <= TABLE_BYTES


def attention_for_prediction(attention: Any) -> Any:
    """A `PredictionAttention` where it can take this attention's place, else the attention itself."""
    fits = (
        type(attention) is BahdanauAttention
        and attention.num_heads == 1
        and attention.score_scale is None
        and attention.dtype in (None, jnp.float32)
    )
    return PredictionAttention(attention) if fits else attention
