"""Networks as an ONNX file, by tf2onnx (extra `runtimes`)."""

import json

import numpy as np
import onnx
import onnxruntime
import tf2onnx
from onnx import helper, numpy_helper

from brats_tf.exporting.label_map import channels_of, probabilities_function
from brats_tf.models.forms import one_form

FILE = "model.onnx"
OPSET = 18
LEAST_VALUES = 1024  # Of a weight that is worth halving.


def write(members, folder, *, weight_type, label_map=None):
    """Writes `model.onnx`: `volume` (B, H, W, D, C) -> probabilities, as `probabilities_function` names them."""
    del label_map  # None: `export` asks a SavedModel alone for one.
    function = probabilities_function(members)
    with one_form():
        model, _ = tf2onnx.convert.from_function(function, input_signature=function.input_signature, opset=OPSET)
    (name,) = function.get_concrete_function().structured_outputs
    _rename_output(model.graph, name)
    if weight_type == "float16":
        _halve(model.graph)
    channels = json.dumps(channels_of([config for config, _ in members]))
    model.metadata_props.append(onnx.StringStringEntryProto(key="channels", value=channels))
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / FILE))


def load(folder):
    """What is in a folder, as functions of arrays."""
    return LoadedOnnx(folder / FILE)


class LoadedOnnx:
    """A session of ONNX Runtime on the CPU."""

    def __init__(self, path):
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(self, volumes):
        """The probabilities of (B, H, W, D, C), float32."""
        return self.session.run(None, {"volume": volumes})[0]


def _rename_output(graph, name):
    """Calls the only output of a graph by a name of ours instead of TensorFlow's."""
    (output,) = graph.output
    if output.name == name:
        return
    node = helper.make_node("Identity", [output.name], [name], name=f"{name}_output")
    output.name = name
    graph.node.append(node)


def _halve(graph):
    """Keeps the weights of a graph in float16; each is cast to float32 where it is used."""
    casts = []
    for weight in graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < LEAST_VALUES:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_float16"))
        casts.append(helper.make_node("Cast", [weight.name], [name], to=onnx.TensorProto.FLOAT, name=f"{name}_cast"))
    for cast in reversed(casts):
        graph.node.insert(0, cast)
