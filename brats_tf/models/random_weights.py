"""A classifier with random weights: statistics for its frozen batch norm, so that it passes on what it sees."""

import math

import keras
import numpy as np

STATISTICS_PIXELS = 512  # Of P5, over all random images.
FLOAT32_BYTES, MUCH_BYTES = 4, 1.5e9
OCTAVES = 6  # Of their detail.


def estimate_statistics(classifier, deviation=1.0, mean=0.0):
    """Gives the frozen batch norms of a classifier the statistics of random images. Returns their number.

    The images have this deviation and mean, as the planes will.

    Frozen at their start, mean 0 and variance 1, they would pass everything on as it is, and sixteen blocks with random
    weights would let nothing through: the standard deviation of B0's P5 would be 3e-5. There are so many images that
    P5, 32 times smaller, has some 500 pixels.
    """
    norms = [layer for layer in classifier.layers if isinstance(layer, keras.layers.BatchNormalization)]
    norms = [layer for layer in norms if not layer.trainable]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.trainable, layer.momentum = True, 0.0  # Takes on the statistics of the one batch.
    if norms:
        height, width, channels = classifier.input.shape[1:]
        count = -(-STATISTICS_PIXELS // (-(-height // 32) * -(-width // 32)))
        images = _random_images((count, height, width, channels)) * np.float32(deviation) + np.float32(mean)
        _trained_pass(classifier, count)(images)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.trainable, layer.momentum = False, momentum
    return len(norms)


def _trained_pass(classifier, count):
    """A function that runs a classifier on `count` images as in training.

    Keras holds the output of every layer until its end, 6 GB of B7's. Where that is much, a graph frees them; it takes
    seconds to trace.
    """
    values = sum(math.prod(layer.output.shape[1:]) for layer in classifier.layers)
    if keras.backend.backend() != "tensorflow" or FLOAT32_BYTES * count * values < MUCH_BYTES:
        return lambda images: classifier(images, training=True)
    import tensorflow as tf

    def pass_on(images):
        return tf.nest.map_structure(tf.shape, classifier(images, training=True))

    return tf.function(pass_on, autograph=False)


def _random_images(shape):
    """Images (B, H, W, C) from coarse to fine, each channel with mean 0 and standard deviation 1."""
    count, height, width, channels = shape
    images = 0.0
    for octave in range(OCTAVES):
        coarse = (count, -(-height // 2**octave), -(-width // 2**octave), channels)
        noise = keras.ops.image.resize(
            keras.random.normal(coarse, seed=octave), (height, width), interpolation="bilinear"
        )
        images += noise * keras.ops.exp(2 * keras.random.normal((count, 1, 1, 1), seed=OCTAVES + octave))
    mean, variance = keras.ops.moments(images, axes=(1, 2), keepdims=True)
    return (images - mean) / keras.ops.sqrt(variance + 1e-6)
