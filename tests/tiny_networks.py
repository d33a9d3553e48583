"""A classifier small enough for tests, on any backend of Keras."""

import keras

from brats_tf.models import backbones

TINY_CROP = (32, 32, 24)
TINY_SPACING_MM = 6
REGISTERED = tuple(backbones.BACKBONES)  # Before `register`.


def register():
    """Makes the classifier the backbone "tiny"."""
    backbones.BACKBONES["tiny"] = backbones.Backbone("tests", tiny_classifier, "torch")


def tiny_classifier(weights=None, input_shape=(None, None, 3)):
    """A classifier with the five scales of a real one and hardly any weights."""
    image = x = keras.Input(input_shape, name="image")
    x = keras.layers.Rescaling(1 / 255, name="hidden_scaling")(x)
    x = keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name="stem_pad")(x)
    for scale in range(1, 6):
        padding = "valid" if scale == 1 else "same"
        x = keras.layers.Conv2D(8, 3, strides=2, padding=padding, name=f"conv{scale}")(x)
        x = keras.layers.BatchNormalization(name=f"norm{scale}")(x)
        x = keras.layers.Activation("relu", name=f"relu{scale}")(x)
    return keras.Model(image, x, name="tiny_classifier")
