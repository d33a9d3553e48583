import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tiny_networks import TINY_CROP
from traced_graphs import operations
from weights_files import check_loads_what_was_saved

from brats_tf.models import convolutions, slices_first
from brats_tf.models.albunet import albunet
from brats_tf.models.embedding import authors_network, embedding_network
from brats_tf.models.interslice import STEM_LAYER
from brats_tf.models.plus import plus_network
from brats_tf.models.remat import rematerialised

LAYERS = {
    convolutions.Conv2D: (16, 16),
    convolutions.Conv3D: (16, 16, 8),
    slices_first.Conv3D: (8, 16, 16),
    convolutions.Conv2DTranspose: (16, 16),
    convolutions.Conv3DTranspose: (16, 16, 8),
}
NETWORKS = {
    "embedding": lambda: embedding_network((*TINY_CROP, 1), backbone="tiny"),
    "embedding_authors": lambda: authors_network((*TINY_CROP, 1), backbone="tiny"),
    "embedding_plus": lambda: plus_network((32, 32, 8, 2), backbone="tiny"),
    "albunet": lambda: albunet((32, 32, 3, 3)),
}
SETTINGS = {"padding": "same", "bias_initializer": "normal", "activation": "relu"}


def outputs_and_gradients(layer, volume, *, training):
    with tf.GradientTape() as tape:
        tape.watch(volume)
        y = layer(volume, training=training)
        loss = tf.reduce_sum(tf.square(tf.cast(y, "float32")))
    return y, tape.gradient(loss, [volume, *layer.trainable_variables])


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_training_computes_what_a_prediction_does(kind, batch):
    layer = kind(16, 3, **SETTINGS)
    volume = np.random.default_rng(0).normal(size=(batch, *LAYERS[kind], 2))
    volume = tf.constant(volume, "float32")
    y, gradients = outputs_and_gradients(layer, volume, training=True)
    expected, plain = outputs_and_gradients(layer, volume, training=False)
    np.testing.assert_array_equal(y, expected)
    assert len(gradients) == 3
    for found, wanted in zip(gradients, plain, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_the_gradient_of_a_bias_is_the_sum_of_what_comes_from_behind(precision, batch):
    """TensorFlow's own loses four fifths of such a sum in bfloat16 on a CPU."""
    layer = convolutions.Conv3D(16, 1, dtype=precision)
    volume = tf.ones((batch, 48, 48, 48, 1))
    upstream = np.random.default_rng(0).normal(0.1, 1, (*volume.shape[:-1], 16))
    upstream = tf.cast(tf.constant(upstream), layer.compute_dtype)
    with tf.GradientTape() as tape:
        y = layer(volume, training=True)
    gradient = tape.gradient(y, layer.bias, output_gradients=upstream)
    exact = tf.reduce_sum(tf.cast(upstream, "float64"), axis=(0, 1, 2, 3))
    np.testing.assert_allclose(gradient, exact, rtol=5e-3 if precision != "float32" else 1e-5)


def test_without_a_bias_nothing_is_added():
    layer = convolutions.Conv3D(4, 1, use_bias=False)
    volume = tf.random.normal((1, 4, 4, 4, 2))
    np.testing.assert_array_equal(layer(volume, training=True), layer(volume, training=False))


@pytest.mark.parametrize("batch", [1, 2, None])
def test_a_training_adds_the_bias_of_all_volumes_in_one_pass(batch):
    layer = convolutions.Conv3D(4, 1)
    trained = tf.function(lambda volume: layer(volume, training=True))
    graph = trained.get_concrete_function(tf.TensorSpec((batch, 4, 4, 4, 2))).graph
    kinds = {operation.type for operation in graph.get_operations()}
    assert "FusedBatchNormV3" in kinds
    assert not kinds & {"BiasAdd", "If", "StatelessIf"}


def test_a_gpu_adds_the_bias_by_itself(monkeypatch):
    monkeypatch.setattr(convolutions, "on_gpu", lambda: True)
    layer = convolutions.Conv3D(4, 1)
    graph = tf.function(lambda volume: layer(volume, training=True)).get_concrete_function(
        tf.TensorSpec((1, 4, 4, 4, 2))
    )
    assert "BiasAdd" in {operation.type for operation in graph.graph.get_operations()}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_convolution_with_a_bias_outside_a_classifier_is_one_of_these(name):
    kinds = (layers.Conv2D, layers.Conv3D, layers.Conv2DTranspose, layers.Conv3DTranspose)
    biased = [one for one in NETWORKS[name]().layers if isinstance(one, kinds) and one.use_bias]
    assert len(biased) > 3
    assert {type(one) for one in biased} <= set(LAYERS)


@pytest.mark.parametrize("keep", ["all", "step", "block"])
def test_a_training_step_takes_no_gradient_of_a_bias_from_tensorflow(keep):
    volume = keras.Input((8, 16, 16, 1))
    x = slices_first.residual_block(slices_first.conv(volume, 16, kernel=3, name=STEM_LAYER), 16, name="first")
    x = layers.MaxPooling3D((2, 1, 1))(x)
    network = rematerialised(keras.Model(volume, slices_first.residual_block(x, 16, name="second")), keep)
    weights = network.trainable_variables

    def step(volume):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(network(volume, training=True))
        return tape.gradient(loss, [one.value for one in weights])

    kinds = operations(step, (1, 8, 16, 16, 1))
    assert "Conv3DBackpropFilterV2" in kinds
    assert "BiasAddGrad" not in kinds


@pytest.mark.parametrize("kind", LAYERS)
def test_it_loads_what_keras_s_layer_has_saved(kind, tmp_path):
    """Files of earlier versions: their classes give the names in a weights file."""
    networks = []
    for one in (getattr(layers, kind.__name__), kind):
        keras.utils.clear_session()
        x = keras.Input((*LAYERS[kind], 2))
        networks.append(keras.Model(x, one(4, 3, name="second")(one(2, 3, name="first")(x))))
    check_loads_what_was_saved(*networks, tmp_path)
