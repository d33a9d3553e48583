import keras
import numpy as np
import pytest

from brats_tf.errors import InputError
from brats_tf.models import interslice
from brats_tf.models.blocks import residual_block


@pytest.mark.parametrize(
    ("depth", "factors"),
    [
        (108, (3, 3, 4)),
        (144, (3, 4, 4)),
        (36, (2, 2, 3)),
        (24, (2, 2, 2)),
        (72, (2, 3, 4)),
        (192, (4, 4, 4)),
        (132, (2, 2, 11)),
    ],
)
def test_depth_factors_are_as_even_as_possible_the_largest_last(depth, factors):
    assert interslice.default_depth_factors(depth) == factors
    assert 3 * np.prod(factors) == depth


@pytest.mark.parametrize("depth", [100, 107, 3, 12, 33, 39, 0])
def test_a_depth_without_three_factors_is_refused(depth):
    with pytest.raises(InputError, match=f"Received: depth={depth}"):
        interslice.default_depth_factors(depth)


def test_the_encoder_keeps_height_and_width():
    volume = keras.Input((36, 8, 16, 1))
    planes, skips = interslice.pooled_encoder(volume, depth_factors=(2, 2, 3))
    assert planes.shape == (None, 8, 16, 3)
    assert [skip.shape[1:] for skip in skips] == [(36, 8, 16, 16), (18, 8, 16, 32), (9, 8, 16, 64)]


def test_both_encoders_offer_the_same_skips():
    volume = keras.Input((36, 8, 16, 1))
    _, pooled = interslice.pooled_encoder(volume, depth_factors=(2, 2, 3))
    keras.utils.clear_session()
    _, strided = interslice.strided_encoder(keras.Input((36, 8, 16, 1)), depth_factors=(2, 2, 3))
    assert [skip.shape for skip in pooled] == [skip.shape for skip in strided]


def test_pooling_keeps_the_largest_of_neighbouring_slices():
    volume = keras.Input((24, 2, 2, 1))
    planes, _ = interslice.pooled_encoder(volume, depth_factors=(2, 2, 2))
    network = keras.Model(volume, planes)
    before, after = network.get_layer("squeeze1_add").output, network.get_layer("squeeze1_pool").output
    values = np.random.default_rng(0).normal(size=(1, 24, 2, 2, 1)).astype("float32")
    before, after = keras.Model(volume, [before, after])(values)
    np.testing.assert_array_equal(np.array(before).reshape(1, 12, 2, 2, 2, 16).max(axis=2), after)


def group_norm(x, groups=8, epsilon=1e-3):
    grouped = x.reshape(*x.shape[:-1], groups, -1)
    axes = (*range(1, x.ndim - 1), x.ndim)
    return (
        (grouped - grouped.mean(axes, keepdims=True)) / np.sqrt(grouped.var(axes, keepdims=True) + epsilon)
    ).reshape(x.shape)


@pytest.mark.parametrize("rank", [2, 3])
def test_a_residual_block_is_norm_relu_convolution_twice_plus_a_shortcut(rank):
    """Every convolution set to copy its input: GN, ReLU, GN, ReLU, plus the input."""
    x = keras.Input((*(4, 6, 5)[:rank], 16))
    network = keras.Model(x, residual_block(x, 16, name="block"))
    for layer in network.layers:
        if "conv" in layer.name or "shortcut" in layer.name:
            kernel = np.zeros(layer.kernel.shape)
            kernel[tuple(size // 2 for size in kernel.shape[:-2])] = np.eye(16)
            layer.set_weights([kernel, np.zeros(16)])
    values = np.random.default_rng(0).normal(size=(2, *x.shape[1:])).astype("float32")
    expected = values + np.maximum(group_norm(np.maximum(group_norm(values), 0)), 0)
    np.testing.assert_allclose(network(values), expected, atol=1e-4)
