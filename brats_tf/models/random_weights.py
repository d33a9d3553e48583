"""A classifier with random weights: statistics for its frozen batch norm, so that it passes on what it sees."""

import keras

STATISTICS_PIXELS = 512  # Of P5, over all random images.
OCTAVES = 6  # Of their detail.


def estimate_statistics(classifier):
    """Gives the frozen batch norms of a classifier the statistics of random images. Returns their number.

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
        classifier(_random_images((count, height, width, channels)), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.trainable, layer.momentum = False, momentum
    return len(norms)


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
