"""The LSTM layers against Keras and PyTorch with the same weights, under masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from plain_lstm import masks

from bahdanau_jax.layers import BiLSTM


def peer_case(seed=11, batch=5, time=12, features=6, hidden=4):
    encoder = BiLSTM(features, hidden, rngs=nnx.Rngs(seed))
    rng = np.random.default_rng(seed)
    for direction in (encoder.forward, encoder.backward):
        direction.bias[...] = jnp.asarray(rng.normal(size=4 * hidden), jnp.float32)
    x = rng.normal(size=(batch, time, features)).astype(np.float32)
    weights = rng.normal(size=(batch, time, 2 * hidden)).astype(np.float32)
    state_weights = rng.normal(size=(2, batch, 2 * hidden)).astype(np.float32)
    return encoder, x, weights, state_weights


def our_results(encoder, x, mask, weights, state_weights):
    """Outputs, states, and the gradients of one scalar for inputs and weights."""

    def loss(encoder, x):
        outputs, (h, c) = encoder(x, mask)
        value = jnp.sum(outputs * weights) + jnp.sum(h * state_weights[0])
        return value + jnp.sum(c * state_weights[1]), (outputs, h, c)

    (_, results), (grads, x_grad) = nnx.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
        encoder, jnp.asarray(x)
    )
    return results, nnx.to_pure_dict(grads), x_grad


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["all", "behind", "in front", "anywhere"])
def test_equals_keras_under_masks(pattern):
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    assert keras.backend.backend() == "jax"
    encoder, x, weights, state_weights = peer_case()
    mask = masks(1, *x.shape[:2])[pattern]
    mask[:, 3] |= ~mask.any(1)  # Keras defines no result for a row without real steps
    mask = jnp.array(mask)
    bidirectional = keras.layers.Bidirectional(
        keras.layers.LSTM(4, return_sequences=True, return_state=True)
    )
    bidirectional.build(x.shape)
    named = {
        "forward": bidirectional.forward_layer.cell,
        "backward": bidirectional.backward_layer.cell,
    }
    for name, cell in named.items():
        layer = getattr(encoder, name)
        for keras_name in ("kernel", "recurrent_kernel", "bias"):
            getattr(cell, keras_name).assign(np.asarray(getattr(layer, keras_name)[...]))
    variables = [v.value for v in bidirectional.trainable_variables]
    paths = [v.path for v in bidirectional.trainable_variables]
    rest = [v.value for v in bidirectional.non_trainable_variables]

    def loss(variables, x):
        (outputs, hf, cf, hb, cb), _ = bidirectional.stateless_call(variables, rest, x, mask=mask)
        h, c = jnp.concatenate([hf, hb], -1), jnp.concatenate([cf, cb], -1)
        value = jnp.sum(outputs * weights) + jnp.sum(h * state_weights[0])
        return value + jnp.sum(c * state_weights[1]), (outputs, h, c)

    (_, theirs), (grads, x_grad) = jax.value_and_grad(loss, (0, 1), has_aux=True)(
        variables, jnp.asarray(x)
    )
    ours, our_grads, our_x_grad = our_results(encoder, x, mask, weights, state_weights)
    for got, want in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_allclose(our_x_grad, x_grad, atol=1e-4)
    assert len(paths) == 6
    for path, grad in zip(paths, grads, strict=True):
        direction = "backward" if "backward" in path else "forward"
        mine = our_grads[direction][path.rsplit("/", 1)[-1]]
        np.testing.assert_allclose(mine, grad, atol=1e-4, err_msg=path)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["all", "behind"])
def test_equals_pytorch(pattern):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    encoder, x, weights, state_weights = peer_case()
    mask = masks(2, *x.shape[:2])[pattern]
    peer = torch.nn.LSTM(6, 4, bidirectional=True, batch_first=True)
    with torch.no_grad():
        for suffix, layer in (("", encoder.forward), ("_reverse", encoder.backward)):
            for theirs, ours in (
                ("weight_ih", layer.kernel),
                ("weight_hh", layer.recurrent_kernel),
            ):
                value = torch.tensor(np.asarray(ours[...]).T.copy())
                getattr(peer, f"{theirs}_l0{suffix}").copy_(value)
            getattr(peer, f"bias_ih_l0{suffix}").copy_(torch.tensor(np.asarray(layer.bias[...])))
            getattr(peer, f"bias_hh_l0{suffix}").zero_()
    tensor = torch.tensor(x, requires_grad=True)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        tensor, torch.tensor(mask.sum(1)), batch_first=True, enforce_sorted=False
    )
    outputs, (h, c) = peer(packed)
    outputs = torch.nn.utils.rnn.pad_packed_sequence(
        outputs, batch_first=True, total_length=x.shape[1]
    )[0]
    h, c = torch.cat([h[0], h[1]], -1), torch.cat([c[0], c[1]], -1)
    value = (outputs * torch.tensor(weights)).sum() + (h * torch.tensor(state_weights[0])).sum()
    (value + (c * torch.tensor(state_weights[1])).sum()).backward()
    ours, our_grads, our_x_grad = our_results(encoder, x, jnp.array(mask), weights, state_weights)
    for got, want in zip(ours, (outputs, h, c), strict=True):
        np.testing.assert_allclose(got, want.detach().numpy(), atol=1e-5)
    assert tensor.grad is not None
    np.testing.assert_allclose(our_x_grad, tensor.grad.numpy(), atol=1e-4)
    for suffix, direction in (("", "forward"), ("_reverse", "backward")):
        grads = our_grads[direction]
        for theirs, mine in (
            ("weight_ih", grads["kernel"].T),
            ("weight_hh", grads["recurrent_kernel"].T),
            ("bias_ih", grads["bias"]),
        ):
            theirs_grad = getattr(peer, f"{theirs}_l0{suffix}").grad.numpy()
            np.testing.assert_allclose(mine, theirs_grad, atol=1e-4, err_msg=theirs + suffix)
