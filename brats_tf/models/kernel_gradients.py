"""The gradient of a 3D convolution's kernel on a CPU, as those of 2D convolutions of sections, see `winograd`.

In bfloat16, oneDNN's own takes twice the time of the convolution, and is wrong where the first axis of a volume is
short: from errors of 8 % to NaN and crashes (TensorFlow 2.21; processors with AMX and with AVX-512; 2 to 12 sections of
up to 192x160 voxels). Those of 2D convolutions are right. Where sums of sections pay, there are less than half of the
multiplications. In bfloat16 these sums are rounded, each on its own, which a gradient averages out:
`experiments/fewer_products.py` measures what is left.
"""

from keras import ops

from brats_tf.models import winograd

SHORT = 16  # Sections, below which bfloat16 always comes here.
LEAST_CHANNELS = 256  # Input times output channels, below which `winograd.kernel_gradient` does not pay.


def suits(layer, inputs):
    """Whether a training of the Keras layer `layer`, a `Conv3D` of `inputs`, takes the gradient of its kernel here."""
    if not winograd.may_take_sections(layer) or layer.compute_dtype not in ("float32", "bfloat16"):
        return False
    if layer.compute_dtype == "bfloat16" and (inputs.shape[1] is None or inputs.shape[1] < SHORT):
        return True
    kind = layer.kernel_size, layer.strides, layer.padding
    return winograd.pays(kind, inputs.shape, layer.filters, LEAST_CHANNELS)


def convolve(x, kernel, *, strides, padding):
    """(B, A, H, W, C) and (a, h, w, C, F), padding "same" or "valid" -> (B, A', H', W', F)."""
    import tensorflow as tf

    settings = {"strides": (1, *strides, 1), "padding": padding.upper()}

    @tf.custom_gradient
    def function(x, kernel):
        def gradient(g):
            sizes = tf.shape(x)
            dx = tf.raw_ops.Conv3DBackpropInputV2(input_sizes=sizes, filter=kernel, out_backprop=g, **settings)
            return dx, kernel_gradient(x, g, kernel.shape[:3], strides=strides, padding=padding)

        return tf.nn.conv3d(x, kernel, **settings), gradient

    return function(x, kernel)


def kernel_gradient(x, g, size, *, strides, padding):
    """(B, A, H, W, C), and (B, A', H', W', F) from behind -> the gradient of a kernel of `size`, (a, h, w, C, F)."""
    if winograd.pays((tuple(size), tuple(strides), padding), x.shape, g.shape[-1], LEAST_CHANNELS):
        return ops.cast(winograd.kernel_gradient(x, g), x.dtype)
    return _of_taps(x, g, size, strides, padding)


def _of_taps(x, g, size, strides, padding):
    """As above: of each section of the kernel by a convolution of the sections that it meets."""
    import tensorflow as tf

    outputs = g.shape[1] or tf.shape(g)[1]
    reach = (outputs - 1) * strides[0] + 1  # Sections from the first to the last that one of the kernel meets.
    if padding == "same":
        missing = tf.maximum(reach - 1 + size[0] - (x.shape[1] or tf.shape(x)[1]), 0)
        x = tf.pad(x, [(0, 0), (missing // 2, missing - missing // 2), (0, 0), (0, 0), (0, 0)])
    settings = {"filter_sizes": (*size[1:], x.shape[-1], g.shape[-1]), "padding": padding.upper()}
    settings["strides"] = (1, *strides[1:], 1)
    images = (_images(x[:, tap : tap + reach : strides[0]]) for tap in range(size[0]))
    behind = _images(g)
    return tf.stack([tf.raw_ops.Conv2DBackpropFilter(input=one, out_backprop=behind, **settings) for one in images])


def _images(x):
    """(B, A, H, W, C) -> (B A, H, W, C)."""
    import tensorflow as tf

    return tf.reshape(x, tf.concat([[-1], tf.shape(x)[2:]], axis=0))
