"""Dropout of whole channels that keeps its precision when a network is saved, loaded or cloned."""

import keras


class _KeepsPrecision:
    """What Keras's layers lack, whose configuration says float32 whatever their precision is."""

    def get_config(self):
        return super().get_config() | {"dtype": keras.dtype_policies.serialize(self.dtype_policy)}


@keras.saving.register_keras_serializable("brats_tf")
class SpatialDropout2D(_KeepsPrecision, keras.layers.SpatialDropout2D):
    """Keras's layer of images."""


@keras.saving.register_keras_serializable("brats_tf")
class SpatialDropout3D(_KeepsPrecision, keras.layers.SpatialDropout3D):
    """Keras's layer of volumes."""
