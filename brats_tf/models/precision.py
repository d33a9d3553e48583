"""The number formats that layers compute in."""

from contextlib import contextmanager, nullcontext

import keras


def on_gpu() -> bool:
    """Whether Keras's backend computes on a GPU."""
    if keras.backend.backend() == "torch":  # For which Keras does not list devices.
        import torch

        return torch.cuda.is_available()
    return any(device.startswith(("gpu", "cuda")) for device in keras.distribution.list_devices())


@contextmanager
def dtype_policy(name):
    """Within it, layers are built with the Keras dtype policy `name`."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def float32_on_cpu():
    """Within it, layers of a network in half precision are built to compute in float32, unless a GPU computes.

    For a classifier and for convolutions of a few channels: oneDNN takes two to ten times as long for the bfloat16
    gradients of their kernels, and of depthwise convolutions, as for those in float32. Predictions are as fast.
    """
    return nullcontext() if on_gpu() else dtype_policy("float32")
