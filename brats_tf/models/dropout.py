"""Dropout of whole channels that keeps its precision when a network is saved, loaded or cloned."""

import keras


@keras.saving.register_keras_serializable("brats_tf")
class SpatialDropout2D(keras.layers.SpatialDropout2D):
    """Keras's layer, whose configuration says float32 whatever its precision is."""

    def get_config(self):
        return super().get_config() | {"dtype": keras.dtype_policies.serialize(self.dtype_policy)}


@keras.saving.register_keras_serializable("brats_tf")
class SpatialDropout3D(keras.layers.SpatialDropout3D):
    """As `SpatialDropout2D`, for volumes."""

    def get_config(self):
        return super().get_config() | {"dtype": keras.dtype_policies.serialize(self.dtype_policy)}
