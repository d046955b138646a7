"""The linear layer's training against a plain numpy loop, and the laws of its order, balance and continuation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simfle_jax.evaluation import linear
from simfle_jax.evaluation.linear import Labelled, Linear, Sgd

SGD = Sgd(batch_size=4, lr=8.0, momentum=0.9, balance="none", seed=0)


def labelled(count=11, dim=5, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, count - n_classes)])
    features = rng.standard_normal((count, dim)) + np.eye(n_classes, dim)[labels]
    return Labelled(jnp.asarray(features, jnp.float32), jnp.asarray(labels, jnp.int32))


def fitted(train, sgd, epochs, apart=None):
    fit = linear.start(linear.new_layer(sgd.seed, train.features.shape[1], 3))
    return linear.fit_epochs(fit, train, apart or (labelled(7, seed=1),), sgd, epochs)


def numpy_epochs(train, orders, lr, momentum, size, layer):
    """SGD with momentum written out; returns kernel, bias and each epoch's mean loss."""
    x, t = np.asarray(train.features, np.float64), np.eye(3)[np.asarray(train.labels)]
    w, b = (np.asarray(part, np.float64) for part in layer)
    vw, vb, losses = np.zeros_like(w), np.zeros_like(b), []
    for order in orders:
        total = 0.0
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            p = np.exp(x[rows] @ w + b)
            p /= p.sum(1, keepdims=True)
            total -= np.log((p * t[rows]).sum(1)).sum()
            error = (p - t[rows]) / len(rows)
            vw, vb = momentum * vw + x[rows].T @ error, momentum * vb + error.sum(0)
            w, b = w - lr * vw, b - lr * vb
        losses.append(total / len(order))
    return w, b, losses


def test_epochs_equal_a_numpy_loop_with_a_short_last_batch():
    train = labelled(11)
    keys = [jax.random.fold_in(jax.random.key(0), epoch) for epoch in range(3)]
    orders = [np.asarray(linear._order(key, train.labels, 3, SGD)) for key in keys]
    w, b, losses = numpy_epochs(train, orders, 8.0 * 4 / 256, 0.9, 4, linear.new_layer(0, 5, 3))
    fit, history = fitted(train, SGD, 3)
    np.testing.assert_allclose(fit.layer.kernel, w, atol=1e-5)
    np.testing.assert_allclose(fit.layer.bias, b, atol=1e-5)
    np.testing.assert_allclose(history.loss, losses, rtol=1e-5)


def test_a_set_smaller_than_the_batch_is_one_batch_with_its_own_rate():
    train, large = labelled(11), dataclasses.replace(SGD, batch_size=1024)
    assert large.scaled_lr(11) == 8.0 * 11 / 256
    w, _, _ = numpy_epochs(train, [np.arange(11)], 8.0 * 11 / 256, 0.9, 11, linear.new_layer(0, 5, 3))
    np.testing.assert_allclose(fitted(train, large, 1)[0].layer.kernel, w, atol=1e-5)


def test_new_layer_is_normal_with_a_hundredth_and_has_no_bias():
    layer = linear.new_layer(0, 2048, 7)
    assert float(layer.kernel.std()) == pytest.approx(0.01, rel=0.03)
    assert abs(float(layer.kernel.mean())) < 5e-4
    assert not layer.bias.any()


def test_continuing_gives_the_same_bits_as_going_through():
    train, apart = labelled(), (labelled(7, seed=1),)
    whole, history = fitted(train, SGD, 6)
    part, first = fitted(train, SGD, 2)
    part, second = linear.fit_epochs(part, train, apart, SGD, 4)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(part)):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(history.loss, first.followed_by(second).loss)


def test_another_seed_gives_another_fit():
    a, b = fitted(labelled(), SGD, 2)[0], fitted(labelled(), dataclasses.replace(SGD, seed=1), 2)[0]
    assert not np.array_equal(a.layer.kernel, b.layer.kernel)


def test_another_seed_is_another_order_for_the_same_layer():
    train, layer = labelled(), linear.new_layer(0, 5, 3)
    fits = [
        linear.fit_epochs(linear.start(layer), train, (labelled(7, seed=1),), dataclasses.replace(SGD, seed=seed), 1)[0]
        for seed in (0, 1)
    ]
    assert np.abs(fits[0].layer.kernel - fits[1].layer.kernel).max() > 1e-3


def test_best_epoch_is_the_first_of_the_highest_on_the_first_set():
    fit, history = fitted(labelled(60), SGD, 12, (labelled(40, seed=2), labelled(40, seed=3)))
    chosen = np.asarray(history.accuracy)[:, 0]
    assert int(fit.best_epoch) == 1 + np.argmax(chosen)
    assert float(fit.best_accuracy) == chosen.max()
    held = labelled(40, seed=2)
    assert float((fit.best.predict(held.features) == held.labels).mean()) == pytest.approx(chosen.max())


def test_every_image_comes_once_an_epoch_in_an_order_of_the_epoch():
    labels = labelled(50).labels
    orders = [np.asarray(linear._order(jax.random.key(epoch), labels, 3, SGD)) for epoch in (0, 1)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(50))
    assert (orders[0] != orders[1]).any()


def test_balanced_sampling_draws_the_classes_equally_often():
    labels = jnp.repeat(jnp.arange(3), jnp.array([900, 90, 10]), total_repeat_length=1000)
    sampling = dataclasses.replace(SGD, balance="sampling")
    orders = [linear._order(jax.random.key(i), labels, 3, sampling) for i in range(20)]
    shares = np.bincount(np.asarray(labels[jnp.concatenate(orders)]), minlength=3) / 20_000
    np.testing.assert_allclose(shares, 1 / 3, atol=0.02)


def test_balanced_loss_equals_repeating_the_rare_class():
    one = Labelled(labelled(6).features, jnp.array([0, 0, 0, 0, 1, 1]))
    repeated = Labelled(*(jnp.concatenate([part, part[4:]]) for part in one))
    whole = dataclasses.replace(SGD, batch_size=6, balance="loss", lr=1.0)
    plain = dataclasses.replace(SGD, batch_size=8, lr=6 / 8)
    a, b = fitted(one, whole, 5)[0], fitted(repeated, plain, 5)[0]
    np.testing.assert_allclose(a.layer.kernel, b.layer.kernel, atol=1e-6)


def test_holdout_takes_its_share_of_every_class_and_never_all():
    labels = np.repeat([0, 1, 2], [100, 20, 2])
    apart = linear.holdout_rows(labels, 0.1, seed=0)
    np.testing.assert_array_equal(np.bincount(labels[apart]), [10, 2, 1])
    assert (apart != linear.holdout_rows(labels, 0.1, seed=1)).any()
    np.testing.assert_array_equal(np.bincount(labels[~linear.holdout_rows(labels, 0.999, 0)]), [1, 1, 1])


def test_prediction_is_the_largest_logit():
    layer = Linear(jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([0.0, 0.5]))
    np.testing.assert_array_equal(layer.predict(jnp.array([[2.0, 1.0], [1.0, 0.6]])), [0, 1])
