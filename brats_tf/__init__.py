"""Embedding a 2D ImageNet classifier in a 3D brain-tumour segmenter, in Keras."""

__version__ = "0.1.0"
