"""Group normalisation is Keras's layer with right sums: weights, values, gradients, files."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.python.grappler import tf_optimizer
from weights_files import check_loads_what_was_saved

from brats_tf.models import normalisation, sums
from brats_tf.models.normalisation import GroupNormalization
from brats_tf.models.one_pass import scale_and_shift
from brats_tf.models.sums import _rows_of_chunks, means_over_space
from brats_tf.runtime.system import cpu_has_bfloat16

ROUNDING = {"float32": 1e-5, "mixed_bfloat16": 2**-6, "mixed_float16": 2**-9}


def make_layers(shape, groups, policy="float32", *, relu=False, **settings):
    """Ours and Keras's in float64, with the same weights, for inputs of `shape`."""
    ours = GroupNormalization(groups, dtype=policy, relu=relu, **settings)
    exact = layers.GroupNormalization(groups, dtype="float64", **settings)
    random = np.random.default_rng(0)
    values = [random.uniform(0.5, 2, shape[-1]), random.uniform(-1, 1, shape[-1])]
    for layer in (ours, exact):
        layer.build(shape)
        layer.set_weights(values[: len(layer.weights)])
    return ours, exact


def both_ways(function, x, upstream, weights):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return [y, *tape.gradient(y, [x, *(weight.value for weight in weights)], output_gradients=upstream)]


@pytest.mark.parametrize("policy", ROUNDING)
@pytest.mark.parametrize("shape", [(1, 6, 5, 4, 16), (2, 6, 5, 4, 16), (1, 6, 5, 16), (3, 6, 5, 24)])
def test_values_and_gradients_are_keras_s_in_float64(shape, policy):
    ours, exact = make_layers(shape, 8, policy)
    random = np.random.default_rng(1)
    x, upstream = (tf.cast(random.normal(mean, 2, shape), ours.compute_dtype) for mean in (3, 0))
    received = both_ways(ours, x, upstream, ours.weights)
    expected = both_ways(exact, tf.cast(x, "float64"), tf.cast(upstream, "float64"), exact.weights)
    assert [received[0].dtype, received[1].dtype] == [ours.compute_dtype] * 2
    for right, mine in zip(expected, received, strict=True):
        tolerance = ROUNDING[policy] * np.abs(right).max()
        np.testing.assert_allclose(tf.cast(mine, "float64"), right, atol=tolerance)


# Two voxels to a row, one to a row, too wide for products; means of 7 deviations, before the limit, and of 9 and 30.
@pytest.mark.parametrize(
    ("shape", "mean"),
    [
        ((1, 64, 32, 16, 8), 1),
        ((1, 32, 32, 16, 16), 1),
        ((2, 128, 128, 48), 1),
        ((1, 32, 32, 16, 16), 7),
        ((1, 32, 32, 16, 16), 9),
        ((1, 32, 32, 16, 16), 30),
    ],
)
@pytest.mark.parametrize("policy", ROUNDING)
@pytest.mark.parametrize("small", [False, True])
def test_chunks_and_relu_change_neither_values_nor_gradients(shape, mean, policy, small, monkeypatch):
    monkeypatch.setattr(normalisation, "SMALL", 10**9 if small else 0)
    ours, exact = make_layers(shape, 4, policy, relu=True)
    assert _rows_of_chunks(np.prod(shape[1:-1]).item(), shape[-1])
    random = np.random.default_rng(1)
    ramp = np.linspace(0, 1, shape[1]).reshape((1, -1) + (1,) * (len(shape) - 2))  # Places differ, channels too.
    x = random.normal(mean, 1, shape) * random.uniform(0.5, 1, shape[-1]) + random.uniform(0, 1, shape[-1]) + ramp
    x, upstream = (tf.cast(one, ours.compute_dtype) for one in (x, random.normal(0.5, 1, shape) * ramp))
    received = both_ways(ours, x, upstream, ours.weights)
    relu = lambda values: tf.nn.relu(exact(values))  # noqa: E731
    expected = both_ways(relu, tf.cast(x, "float64"), tf.cast(upstream, "float64"), exact.weights)
    settled = np.abs(exact(tf.cast(x, "float64"))) > 0.02  # Where the ReLU bends, a rounding decides.
    for number, (right, mine) in enumerate(zip(expected, received, strict=True)):
        kept = settled if number < 2 else ...
        tolerance = (5 if mean > 1 else 1) * ROUNDING[policy] * np.abs(right).max()
        np.testing.assert_allclose(tf.cast(mine, "float64").numpy()[kept], right.numpy()[kept], atol=tolerance)


@pytest.mark.parametrize("traced", [False, True])
def test_what_is_not_a_number_is_not_hidden(traced):
    """oneDNN's pass with ReLU makes 0 of it, so that nobody would notice a broken network."""
    layer = GroupNormalization(8, relu=True)
    function = tf.function(layer, autograph=False) if traced else layer
    x = np.random.default_rng(0).normal(size=(1, 32, 32, 16, 16)).astype("float32")
    assert np.isfinite(function(tf.constant(x))).all()
    x[0, 1, 2, 3, 5] = np.nan
    y = function(tf.constant(x)).numpy()
    assert np.count_nonzero(np.isfinite(y[..., 4:6])) <= 1 and np.isfinite(np.delete(y, (4, 5), axis=-1)).all()
    assert np.isnan(GroupNormalization(8)(tf.constant(y))[..., 4:6]).all()
    gamma, beta = layer.get_weights()
    gamma[5] = np.nan
    layer.set_weights([gamma, beta])
    y = function(tf.constant(np.ones_like(x))).numpy()
    assert not np.isfinite(y[..., 5]).any() and np.isfinite(np.delete(y, 5, axis=-1)).all()


def test_relu_is_part_of_the_config():
    layer = GroupNormalization.from_config(GroupNormalization(2, relu=True).get_config())
    x = tf.constant(np.random.default_rng(0).normal(size=(1, 4, 4, 4)), "float32")
    assert layer(x).numpy().min() == 0 > GroupNormalization(2)(x).numpy().min()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("small", [False, True])
def test_a_mean_far_from_zero_costs_no_digits(small, training, monkeypatch):
    """In one pass the variance would be wrong here: its size chooses the pass that subtracts first."""
    monkeypatch.setattr(normalisation, "SMALL", 10**9 if small else 0)
    x = tf.constant(np.random.default_rng(0).normal(1000, 1, (1, 32, 32, 16, 16)), "float32")
    right = layers.GroupNormalization(8, dtype="float64")(tf.cast(x, "float64"))
    np.testing.assert_allclose(GroupNormalization(8)(x, training=training), right, atol=1e-4)
    monkeypatch.setattr(normalisation, "MOST_DISTANCES", np.inf)
    wrong = np.abs(GroupNormalization(8)(x, training=training) - tf.cast(right, "float32")).max() > 1e-2
    assert wrong != (training or small)


@pytest.mark.parametrize(("mean", "subtracts"), [(7, False), (-7, False), (9, True), (-9, True)])
def test_a_sample_tells_whether_a_mean_is_far(mean, subtracts, monkeypatch):
    monkeypatch.setattr(normalisation, "SMALL", 0)
    summed = []
    sums_around = normalisation.sums_around
    record = lambda g, x, around: summed.append(around) or sums_around(g, x, around)  # noqa: E731
    monkeypatch.setattr(normalisation, "sums_around", record)
    x = tf.constant(np.random.default_rng(0).normal(mean, 1, (1, 32, 32, 16, 16)), "float32")
    GroupNormalization(8)(x)
    assert (not np.any(summed[0])) == subtracts


@pytest.mark.parametrize("place", [0, 16384 // 2])
def test_one_voxel_far_from_all_others_costs_no_digits(place, monkeypatch):
    """Its distance makes the deviation of a sample large, but not that of the volume."""
    monkeypatch.setattr(normalisation, "SMALL", 0)
    x = np.random.default_rng(0).normal(1000, 1, (1, 32, 32, 16, 16)).astype("float32")
    x.reshape(-1, 16)[place] = 3000
    right = layers.GroupNormalization(1, dtype="float64")(x.astype("float64"))
    np.testing.assert_allclose(GroupNormalization(1)(tf.constant(x)), right, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 3.7, -100.0])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_volume_of_one_value_becomes_the_offset(value, dtype):
    layer = GroupNormalization(8, dtype=dtype)
    np.testing.assert_allclose(layer(tf.fill((1, 32, 32, 16, 16), tf.cast(value, dtype))), 0, atol=0.01)


def test_without_scale_and_centre_it_standardises_each_channel():
    ours, exact = make_layers((2, 8, 8, 3), 3, center=False, scale=False)
    x = tf.constant(np.random.default_rng(0).normal(5, 3, (2, 8, 8, 3)), "float32")
    assert not ours.weights
    np.testing.assert_allclose(ours(x), exact(tf.cast(x, "float64")), atol=1e-5)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_compiled_function_takes_any_batch_and_size(batch, relu):
    ours, exact = make_layers((batch, 7, 5, 16), 8, relu=relu)
    compiled = tf.function(ours, input_signature=[tf.TensorSpec((None, None, None, 16))], autograph=False)
    x = tf.constant(np.random.default_rng(0).normal(2, 3, (batch, 7, 5, 16)), "float32")
    right = exact(tf.cast(x, "float64"))
    np.testing.assert_allclose(compiled(x), tf.nn.relu(right) if relu else right, atol=1e-5)


@pytest.mark.slow
def test_it_loads_what_keras_s_layer_has_saved(tmp_path):
    """Files of earlier versions: their classes give the names in a weights file."""
    networks = []
    for kind in (layers.GroupNormalization, GroupNormalization):
        keras.utils.clear_session()
        x = keras.Input((4, 4, 16))
        networks.append(keras.Model(x, kind(4, name="second")(layers.Conv2D(16, 1)(kind(8, name="first")(x)))))
    check_loads_what_was_saved(*networks, tmp_path)


def test_channels_must_be_last():
    with pytest.raises(ValueError, match="last axis. Received: axis=1"):
        GroupNormalization(2, axis=1).build((None, 4, 6, 6))


@pytest.mark.parametrize("able", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("size", "tolerance"), [(4096 * 256, 1e-6), (5000, 2e-6), (102407, 2e-6)])
def test_means_are_float32_in_any_precision(size, tolerance, dtype, able, monkeypatch):
    """Of a size with chunks of 4,096 rows, of one too small for chunks, and of a prime number, which has none."""
    if able and not cpu_has_bfloat16():
        pytest.skip("this processor does not multiply in bfloat16")
    monkeypatch.setattr(sums, "cpu_has_bfloat16", lambda: able)
    monkeypatch.setattr(sums, "has_onednn", lambda dtype: able)
    x = tf.cast(np.random.default_rng(0).uniform(0, 2, (2, size, 16)), dtype)
    means = means_over_space(x)
    assert means.dtype == "float32"
    rounded = able and dtype == "bfloat16" and size == 4096 * 256  # Once for each of 64 chunks.
    np.testing.assert_allclose(means, np.mean(tf.cast(x, "float64"), axis=1), rtol=3e-4 if rounded else tolerance)


def test_one_pass_and_two_are_the_same():
    random = np.random.default_rng(0)
    x, slope, offset = (tf.constant(random.normal(size=shape), "float32") for shape in ((1, 60, 8), (1, 8), (1, 8)))
    np.testing.assert_allclose(scale_and_shift(x, slope, offset), x * slope[:, None] + offset[:, None], atol=1e-6)
    for dtype in ("bfloat16", "float16"):
        low = tf.cast(x, dtype)
        exact = tf.cast(low, "float32") * slope[:, None] + offset[:, None]
        np.testing.assert_array_equal(scale_and_shift(low, slope, offset), tf.cast(exact, dtype))


def optimised(layer, shape):
    """The graph that TensorFlow makes of a layer."""
    traced = tf.function(layer, autograph=False).get_concrete_function(tf.TensorSpec(shape))
    meta = tf.compat.v1.train.export_meta_graph(graph_def=traced.graph.as_graph_def(), graph=traced.graph)
    meta.collection_def["train_op"].node_list.value.append(traced.outputs[0].op.name)
    return tf_optimizer.OptimizeGraph(tf.compat.v1.ConfigProto(), meta)


def test_tensorflow_keeps_the_one_pass():
    """Grappler takes a batch normalisation with a constant scale or variance apart; that costs three times as much."""
    kinds = [node.op for node in optimised(GroupNormalization(4), (1, 60, 8)).node]
    assert kinds.count("FusedBatchNormV3") == kinds.count("FusedBatchNormGradV3") == 1


def test_onednn_makes_one_operation_of_the_pass_and_the_relu():
    nodes = optimised(GroupNormalization(4, relu=True), (1, 60, 8)).node
    (fused,) = (node for node in nodes if node.op == "_FusedBatchNormEx")
    assert fused.attr["activation_mode"].s == b"Relu"


def test_sums_are_exact_where_keras_s_mean_is_not():
    random = np.random.default_rng(0)
    x = (random.standard_normal((1, 96, 96, 96, 8), dtype=np.float32) + 2) * np.float32(3)
    layer = GroupNormalization(1, relu=True)
    exact = (x.astype(np.float64) - x.mean(dtype=np.float64)) / np.sqrt(x.var(dtype=np.float64) + layer.epsilon)
    np.testing.assert_allclose(layer(x), np.maximum(exact, 0), atol=2e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("mean", [0, 3, 10, 30])
def test_the_gradient_of_half_precision_keeps_its_digits_far_from_zero(mean, policy):
    """Of two large terms of opposite sign, each rounded, little would be left."""
    shape, random = (1, 16, 16, 12, 16), np.random.default_rng(0)
    ours, exact = make_layers(shape, 8, policy)
    x = tf.cast(random.normal(mean, 1, shape), ours.compute_dtype)
    upstream = tf.cast(random.normal(0, 1, shape) + 0.5 * (np.asarray(x, np.float32) - mean), ours.compute_dtype)
    mine = both_ways(ours, x, upstream, [])[1]
    right = both_ways(exact, tf.cast(x, "float64"), tf.cast(upstream, "float64"), [])[1]
    error = np.linalg.norm(tf.cast(mine, "float64") - right) / np.linalg.norm(right)
    assert error < ROUNDING[policy] / 4
