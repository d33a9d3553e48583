"""The classifier's activation with a gradient that keeps less."""

import keras
from keras import ops


def silu(x):
    """x sigmoid(x) of any shape; the backward pass keeps `x` alone.

    TensorFlow's own keeps 1.0 x too, whose second use it takes from the forward pass: in `embedding-plus` that is the
    largest tensor of the classifier once more.
    """
    if keras.backend.backend() != "tensorflow":
        return ops.silu(x)
    import tensorflow as tf

    @tf.custom_gradient
    def function(x):
        def gradient(upstream):
            with tf.control_dependencies([upstream]):  # Else the sigmoid of the forward pass would be kept for this.
                sigmoid = tf.sigmoid(x)
            return upstream * sigmoid + tf.raw_ops.SigmoidGrad(y=sigmoid, dy=upstream * x)

        return x * tf.sigmoid(x), gradient

    return function(x)


def with_lean_gradients(network):
    """Gives the layers of `network` whose activation is Keras's `silu` the one of this module; returns it."""
    for layer in network.layers:
        if isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.silu:
            layer.activation = silu
    return network
