"""What TensorFlow has traced."""

import tensorflow as tf


def operations(function, *shapes):
    """The kinds of operations in the graph of a function, those of nested functions included."""
    traced = tf.function(function, autograph=False).get_concrete_function(*map(tf.TensorSpec, shapes))
    definition = traced.graph.as_graph_def()
    return {node.op for node in [*definition.node, *(n for f in definition.library.function for n in f.node_def)]}
