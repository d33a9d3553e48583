"""tf.data streams and augmentation."""
