"""Whether oneDNN computes TensorFlow's operations on a CPU, asked of TensorFlow itself."""

from functools import cache

import numpy as np

# What TensorFlow's graph optimiser makes of a batch normalisation and a ReLU; `tf.raw_ops` lacks it. On a CPU, oneDNN
# alone computes it.
BOTH = "_FusedBatchNormEx"


@cache
def has_onednn(dtype):
    """Whether oneDNN computes in `dtype`: not in every build, on every processor, nor with TF_ENABLE_ONEDNN_OPTS=0."""
    import tensorflow as tf

    x, one = np.array([-1, 2, -3, 4]).reshape(1, 1, 1, 4), np.ones(4, np.float32)
    settings = {"scale": one, "offset": 0 * one, "mean": 0 * one, "variance": one}
    try:
        with tf.init_scope():  # Now, also where a function is being traced.
            found = tf.function(lambda: pass_with_relu(tf.cast(x, dtype), settings), autograph=False)()
            return np.array_equal(tf.cast(found, tf.float32), np.maximum(x, 0))
    except (tf.errors.OpError, ValueError):
        return False


def pass_with_relu(x, settings):
    """A batch normalisation of (1, 1, N, C) with given statistics, and a ReLU, in a graph; C a multiple of 4.

    `settings` are its scale, offset, mean and variance, (C,).
    """
    import tensorflow as tf

    value = tf.compat.v1.AttrValue
    kinds = {"T": value(type=x.dtype.as_datatype_enum), "U": value(type=tf.float32.as_datatype_enum)}
    numbers = {"epsilon": value(f=0.0), "exponential_avg_factor": value(f=1.0), "num_side_inputs": value(i=0)}
    names = {"activation_mode": value(s=b"Relu"), "data_format": value(s=b"NHWC"), "is_training": value(b=False)}
    operation = tf.compat.v1.get_default_graph().create_op(
        BOTH,
        [x, *(tf.convert_to_tensor(settings[name]) for name in ("scale", "offset", "mean", "variance"))],
        [x.dtype] + [tf.float32] * 5,
        name="scale_and_shift",
        attrs=kinds | numbers | names,
    )
    return operation.outputs[0]
