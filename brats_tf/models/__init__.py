"""The networks: Keras functional-API builders, tensors in, tensors out."""
