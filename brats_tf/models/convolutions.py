"""Keras's convolutions whose gradients are right in bfloat16 on a CPU, and take half of the time.

On a CPU, TensorFlow sums the gradient of a bias in the format of the layer. In bfloat16 such a sum stops growing once a
value is smaller than its last digit: of 100,000 voxels 80 % of it are lost, of 192x160x108 voxels 99 %. Here it is a
sum of chunks, see `sums`, and a training adds the bias as a normalisation does its offset. For the gradient of a 3D
kernel see `kernel_gradients`.
"""

import keras
from keras import layers, ops

from brats_tf.models import kernel_gradients, winograd
from brats_tf.models.one_pass import scale_and_shift
from brats_tf.models.precision import on_gpu
from brats_tf.models.sums import bias_gradient


class _WithBias:
    """A convolution of Keras whose training has gradients of its own, where no GPU computes.

    A prediction leaves it to TensorFlow's graph optimiser, which makes one operation of convolution and bias.
    """

    def call(self, inputs, training=None):
        if not training or on_gpu():
            return super().call(inputs)
        outputs = self.without_bias(inputs)
        if self.use_bias:
            # Times one, because a gradient of our own must be given values, not variables.
            outputs = _add_bias(outputs, 1.0 * ops.cast(self.bias, "float32"))
        return outputs if self.activation is None else self.activation(outputs)

    def without_bias(self, inputs):
        return self.convolution_op(inputs, self.kernel)


class _TransposedWithBias(_WithBias):
    def without_bias(self, inputs):
        names = ("padding", "output_padding", "dilation_rate", "data_format")
        settings = {name: getattr(self, name) for name in names}
        return ops.conv_transpose(inputs, self.kernel, strides=list(self.strides), **settings)


@keras.saving.register_keras_serializable("brats_tf")
class Conv2D(_WithBias, layers.Conv2D):
    """(B, H, W, C) -> (B, h, w, filters)."""


@keras.saving.register_keras_serializable("brats_tf")
class Conv3D(_WithBias, layers.Conv3D):
    """(B, H, W, D, C) -> (B, h, w, d, filters), with less than half of the multiplications where that is faster."""

    def call(self, inputs, training=None):
        if not winograd.suits(self, inputs):
            return super().call(inputs, training=training)
        # Times one, as above.
        bias = 1.0 * self.bias if self.use_bias else ops.zeros(self.filters)
        outputs = winograd.convolve(inputs, 1.0 * self.in_order(self.kernel), bias)
        return outputs if self.activation is None else self.activation(outputs)

    def without_bias(self, inputs):
        if not kernel_gradients.suits(self, inputs):
            return super().without_bias(inputs)
        settings = {"strides": self.strides, "padding": self.padding}
        return kernel_gradients.convolve(inputs, 1.0 * self.in_order(self.kernel), **settings)

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, self.in_order(kernel))

    def in_order(self, kernel):
        """The kernel in the order of the axes of the inputs."""
        return kernel


@keras.saving.register_keras_serializable("brats_tf")
class Conv2DTranspose(_TransposedWithBias, layers.Conv2DTranspose):
    """(B, H, W, C) -> (B, h, w, filters)."""


@keras.saving.register_keras_serializable("brats_tf")
class Conv3DTranspose(_TransposedWithBias, layers.Conv3DTranspose):
    """(B, H, W, D, C) -> (B, h, w, d, filters)."""


def _add_bias(x, bias):
    """(B, ..., C) and float32 (C,) -> the shape and type of `x`."""
    shape = ops.shape(x)

    @ops.custom_gradient
    def function(x, bias):
        # All volumes as one, because they have the same bias.
        y = scale_and_shift(ops.reshape(x, (1, -1, shape[-1])), ops.ones((1, shape[-1])), bias[None])

        def gradient(*args, upstream=None):
            g = args[0] if upstream is None else upstream
            return g, bias_gradient(g)

        return ops.reshape(y, shape), gradient

    return function(x, bias)
