"""A language model from both ends, for a classifier to start from (Dai and Le 2015, 1511.01432).

It trains the embedding and the BiLSTM that `AttentionClassifier` has too, on texts without labels.

The forward half of a BiLSTM predicts each next word, the backward half each word before, so no word is
predicted from itself; both share the embedding with the output layer (Press and Wolf 2017, 1608.05859). Over
tens of thousands of words a softmax would cost far more than the recurrence: `sampled_softmax_loss` weighs each
word against a few hundred that are drawn once a step (Jean et al. 2015, 1412.2007).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from bahdanau_jax.lstm import BiLSTM
from bahdanau_jax.objective import AnyArray, Metrics
from bahdanau_jax.text import PAD

_CHUNK = (
    512  # rows of logits at a time: 1 MB of them at 512 candidates, which stays in the second cache
)


class BidirectionalLanguageModel(nnx.Module):
    """Embedding, one BiLSTM, and an output layer that is the embedding again.

    `embedding` and `encoder` have the names and shapes that they have in `AttentionClassifier`.

    Args:
      vocab_size: number of ids.
      embedding_features, hidden_features: sizes; `hidden_features` is per direction.
      dropout: rate on the BiLSTM's inputs, one mask per sequence and direction.
      dtype, implementation, chunk_size: as `BiLSTM`'s.
      rngs: streams `params`, `dropout`, and `candidates` for the words drawn by a training step.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> model = BidirectionalLanguageModel(10, embedding_features=4, hidden_features=6, rngs=nnx.Rngs(0))
      >>> features, targets, real = model(jnp.array([[1, 5, 7, 0]]))
      >>> features.shape, targets.tolist(), real.tolist()  # forward: 5, 7; backward: 1, 5
      ((2, 1, 3, 4), [[[5, 7, 0]], [[1, 5, 7]]], [[[True, True, False]], [[True, True, False]]])
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        embedding_features: int = 128,
        hidden_features: int = 128,
        dropout: float = 0.0,
        dtype: DTypeLike = jnp.float32,
        implementation: str = "auto",
        chunk_size: int = 0,
        rngs: nnx.Rngs,
    ):
        normal = nnx.initializers.normal
        self.embedding = nnx.Embed(
            vocab_size, embedding_features, dtype=dtype, embedding_init=normal(0.05), rngs=rngs
        )
        self.encoder = nnx.List(
            [
                BiLSTM(
                    embedding_features,
                    hidden_features,
                    dropout=dropout,
                    dtype=dtype,
                    implementation=implementation,
                    chunk_size=chunk_size,
                    rngs=rngs,
                )
            ]
        )
        glorot = nnx.initializers.glorot_uniform()
        self.projection = nnx.List(
            [
                nnx.Linear(
                    hidden_features, embedding_features, kernel_init=glorot, dtype=dtype, rngs=rngs
                )
                for _ in range(2)
            ]
        )
        self.bias = nnx.Param(jnp.zeros(vocab_size, jnp.float32))
        self.rngs = rngs.fork()

    def __call__(
        self, ids: Int[Array, "batch time"]
    ) -> tuple[
        Float[Array, "2 batch time-1 embed"],
        Int[Array, "2 batch time-1"],
        Bool[Array, "2 batch time-1"],
    ]:
        """What each direction makes of the words so far, the word it should predict, and whether there is one.

        Row 0 is the forward direction, at positions 0 to time-2; row 1 the backward one, at 1 to time-1.
        """
        mask = ids != PAD
        outputs, _ = self.encoder[0](self.embedding(ids), mask)  # [batch, time, 2*hidden]
        forward, backward = jnp.split(outputs, 2, axis=-1)
        features = self.projection[0](forward[:, :-1]), self.projection[1](backward[:, 1:])
        real = mask[:, :-1] & mask[:, 1:]
        return (
            jnp.stack(features).astype(jnp.float32),
            jnp.stack([ids[:, 1:], ids[:, :-1]]),
            jnp.stack([real, real]),
        )


class WordShares(NamedTuple):
    """How often each word is drawn as a candidate."""

    ends: AnyArray  # float32 [vocab], the shares added up to and with each word
    logs: AnyArray  # float32 [vocab], the log of each word's share


def word_shares(counts: np.ndarray, power: float = 0.75) -> WordShares:
    """Each word's frequency flattened by `power` (Mikolov et al. 2013, 1310.4546), as shares of 1."""
    flattened = np.asarray(counts, np.float64) ** power
    shares = flattened / flattened.sum()
    with np.errstate(divide="ignore"):  # a word that does not occur is never drawn
        logs = np.log(shares)
    return WordShares(np.cumsum(shares).astype(np.float32), logs.astype(np.float32))


def draw_candidates(
    key: Array, shares: WordShares, count: int
) -> tuple[Int[Array, "count"], Float[Array, "count"]]:
    """Draws ids with replacement, and the log of how often each is expected among them."""
    ends = jnp.asarray(shares.ends)
    points = jax.random.uniform(key, (count,)) * ends[-1]
    drawn = jnp.searchsorted(ends, points, side="right").astype(jnp.int32)
    return drawn, jnp.log(float(count)) + jnp.asarray(shares.logs)[drawn]


def language_model_loss(
    model: BidirectionalLanguageModel,
    ids: Int[Array, "batch time"],
    candidates: Int[Array, "candidates"],
    log_expected: Float[Array, "candidates"],
) -> tuple[Float[Array, ""], Metrics]:
    """Mean loss in nats of all the words predicted, from both ends, and the sums behind it.

    A padding position is neither seen nor predicted. `Metrics.correct` counts the words that beat all
    candidates. Arguments as `sampled_softmax_loss`'s.
    """
    features, targets, real = model(ids)
    width = features.shape[-1]
    count = jnp.sum(real, dtype=jnp.float32)
    weights = real / jnp.maximum(count, 1)
    table, bias = model.embedding.embedding[...], model.bias[...]
    mean, correct = sampled_softmax_loss(
        features.reshape(-1, width),
        targets.reshape(-1),
        weights.reshape(-1),
        table,
        bias,
        candidates,
        log_expected,
    )
    return mean, Metrics(mean * count, correct, count)


def sampled_softmax_loss(
    features: Float[Array, "n embed"],
    targets: Int[Array, "n"],
    weights: Float[Array, "n"],
    table: Float[Array, "vocab embed"],
    bias: Float[Array, "vocab"],
    candidates: Int[Array, "candidates"],
    log_expected: Float[Array, "candidates"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Cross-entropy of each target against itself and the candidates, as a weighted sum.

    A word's logit is `features @ table[word] + bias[word]`. A candidate's is lowered by the log of how often
    it is expected among the candidates, which makes the sum over them an unbiased estimate of the sum over
    all other words (Jean et al. 2015, 1412.2007, section 3); one that is the target itself does not count. With
    each word once and `log_expected` 0, this is the softmax over all words.

    Returns:
      the sum of weight * loss, and of the rows of weight above 0, how many targets beat all candidates.

    Example:
      >>> import jax.numpy as jnp
      >>> loss, _ = sampled_softmax_loss(jnp.ones((1, 2)), jnp.array([3]), jnp.ones(1), jnp.zeros((4, 2)),
      ...     jnp.zeros(4), jnp.arange(4), jnp.zeros(4))
      >>> round(float(loss), 4)  # log 4
      1.3863
    """
    return _sampled_loss(
        features,
        table[targets],
        bias[targets],
        table[candidates],
        bias[candidates] - log_expected,
        (targets, weights, candidates, log_expected),
    )


@jax.custom_vjp
def _sampled_loss(features, rows, biases, candidate_rows, candidate_biases, fixed):
    return _loss_and_gradients(
        features, rows, biases, candidate_rows, candidate_biases, fixed, gradients=False
    )[0]


def _loss_and_gradients(
    features, rows, biases, candidate_rows, candidate_biases, fixed, *, gradients=True
):
    """The loss, and with it the gradients of everything but `fixed`: the logits are made only once."""
    targets, weights, candidates, log_expected = fixed
    n = len(targets)
    chunk = min(n, _CHUNK)
    behind = -n % chunk

    def chunks(x):
        x = jnp.pad(x, [(0, behind)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(-1, chunk, *x.shape[1:])

    def body(sums, xs):
        features, rows, biases, targets, weights = xs
        logits = features @ candidate_rows.T + candidate_biases  # [chunk, candidates]
        logits = jnp.where(targets[:, None] == candidates, -jnp.inf, logits)
        own = jnp.sum(features * rows, axis=-1) + biases  # [chunk]
        top = jnp.maximum(own, jnp.max(logits, axis=-1))
        others = jnp.max(logits + log_expected, axis=-1)
        exponentials = jnp.exp(logits - top[:, None])
        own_exponential = jnp.exp(own - top)
        total = jnp.sum(exponentials, axis=-1) + own_exponential
        loss = jnp.sum(weights * (jnp.log(total) + top - own))
        correct = jnp.sum((own > others) & (weights > 0), dtype=jnp.float32)
        loss_sum, correct_sum, *gradient_sums = sums
        if not gradients:
            return (loss_sum + loss, correct_sum + correct), None
        shares = exponentials * (weights / total)[:, None]  # d loss / d logits
        own_share = weights * (own_exponential / total - 1)
        each = (
            shares @ candidate_rows + own_share[:, None] * rows,
            own_share[:, None] * features,
            own_share,
        )
        new = shares.T @ features, jnp.sum(shares, axis=0)
        sums = (
            loss_sum + loss,
            correct_sum + correct,
            *(a + b for a, b in zip(gradient_sums, new, strict=True)),
        )
        return sums, each

    zeros = [jnp.zeros((), jnp.float32)] * 2
    if gradients:
        zeros += [jnp.zeros_like(candidate_rows), jnp.zeros_like(candidate_biases)]
    sums, each = jax.lax.scan(
        body, tuple(zeros), tuple(map(chunks, (features, rows, biases, targets, weights)))
    )
    loss, correct, *shared = sums
    if not gradients:
        return (loss, correct), None
    assert each is not None  # there are gradients
    each = tuple(x.reshape(n + behind, *x.shape[2:])[:n] for x in each)
    return (loss, correct), (*each, *shared)


def _forward(*arguments):
    return _loss_and_gradients(*arguments)


def _backward(gradients, cotangents):
    return (*(cotangents[0] * x for x in gradients), None)


_sampled_loss.defvjp(_forward, _backward)


def language_model_step(
    graphdef: nnx.GraphDef, shares: WordShares, candidate_count: int, state: nnx.State, batch
) -> tuple[nnx.State, Metrics]:
    """One step of gradient descent, a pure function like `steps.train_step`."""
    model, optimizer = nnx.merge(graphdef, state)
    candidates, log_expected = draw_candidates(model.rngs.candidates(), shares, candidate_count)
    loss_fn = partial(
        language_model_loss, ids=batch.ids, candidates=candidates, log_expected=log_expected
    )
    (_, metrics), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
    optimizer.update(model, grads)
    return nnx.state((model, optimizer)), metrics
