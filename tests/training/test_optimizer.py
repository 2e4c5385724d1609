"""The optimizer is the one asked for, with its options."""

import jax.numpy as jnp
import numpy as np
import pytest

from bahdanau_jax.errors import InputError
from bahdanau_jax.training.optimizer import make_optimizer


def test_adam_takes_the_step_of_the_paper():
    optimizer = make_optimizer("adam", 0.1, total_steps=9, b1=0.9, b2=0.999, eps=1e-7)
    parameters, gradient = jnp.array([1.0, -2.0]), jnp.array([0.5, -3.0])
    updates, _ = optimizer.update(gradient, optimizer.init(parameters), parameters)
    # After bias correction the first step is g / (|g| + eps).
    np.testing.assert_allclose(updates, -0.1 * np.sign(gradient), rtol=1e-5)


def test_weight_decay_makes_weights_smaller():
    optimizer = make_optimizer("adamw", 0.1, total_steps=9, options={"weight_decay": 0.5})
    parameters = jnp.array([2.0])
    updates, _ = optimizer.update(jnp.zeros(1), optimizer.init(parameters), parameters)
    assert float(parameters[0] + jnp.asarray(updates)[0]) == pytest.approx(2.0 - 0.1 * 0.5 * 2.0)


def test_an_argument_that_the_optimizer_does_not_take_is_refused_unless_it_is_the_default():
    make_optimizer("sgd", 0.1, total_steps=9, b1=0.9)  # the config's default
    with pytest.raises(
        InputError, match="config.optimizer.b1 is 0.8; expected its default, since sgd"
    ):
        make_optimizer("sgd", 0.1, total_steps=9, b1=0.8)
    with pytest.raises(InputError, match="config.optimizer.options does not fit sgd"):
        make_optimizer("sgd", 0.1, total_steps=9, options={"weight_decay": 0.1})


def test_a_linear_schedule_ends_at_zero_and_large_gradients_are_clipped():
    optimizer = make_optimizer("sgd", 1.0, total_steps=4, schedule="linear", clip_norm=5.0)
    parameters, state = jnp.zeros(2), None
    state = optimizer.init(parameters)
    taken = []
    for gradient in ([3.0, 4.0], [30.0, 40.0], [0.3, 0.4], [3.0, 4.0], [3.0, 4.0]):
        updates, state = optimizer.update(jnp.array(gradient), state, parameters)
        taken.append(np.asarray(updates).tolist())
    want = [[-3, -4], [-2.25, -3], [-0.15, -0.2], [-0.75, -1], [0, 0]]
    np.testing.assert_allclose(taken, want, rtol=1e-5, atol=1e-7)
