"""What model servers want beside an export: TensorFlow Serving beside a SavedModel, Triton beside an ONNX file.

Both look for a model in `<name>/<version>`, so the folder of such an export has a number for its name, and what
configures the server lies beside it. `tensorflow-serving-api` (extra `serve`) has the messages of the first.
"""

from pathlib import Path

import numpy as np

from brats_tf.errors import InputError
from brats_tf.exporting.label_map import channels_of
from brats_tf.models.registry import get_network
from brats_tf.regions import CLASSES, REGIONS
from brats_tf.runtime.files import atomic
from brats_tf.runtime.libraries import need_libraries

WARM_UP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"  # Where TensorFlow Serving looks for it.
WARM_UP_SHAPE = (64, 64, 48)  # Of a raw volume; the graph crops it to the size that the networks see.


def check_place(out, options):
    """Raises `InputError` unless a server can take an export in `out`, and its messages can be written."""
    if options.format == "litert":
        raise InputError("--serving is for --format savedmodel or onnx: no server here takes LiteRT files.")
    if not (out.name.isdecimal() and int(out.name) > 0):
        raise InputError(
            "With --serving, --out must end in a version number, as servers look for <name>/<version>: "
            f"--out {out.parent / 'ensemble' / '1'}. Received: {out}."
        )
    name = out.resolve().parent.name
    if not name.isprintable() or set(name) & set("\"'\\"):
        raise InputError(f"With --serving, the folder above --out names the model, without quotes. Received: {name}.")
    if options.format == "savedmodel":
        need_libraries("serve", "tensorflow_serving")


def write_warm_up(folder, out, configs, *, label_map):
    """Writes the request that TensorFlow Serving answers itself before it takes others, so that none is slow.

    Args:
        folder: that of the SavedModel while it is written.
        out: the folder that it will have, `<name>/<version>`.
        configs: of the networks.
        label_map: whether the request is one for `label_map`.
    """
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name = out.resolve().parent.name
    request.model_spec.signature_name = "label_map" if label_map else "probabilities"
    (*size, channels), _ = _shapes(configs)
    shape = (*WARM_UP_SHAPE, channels) if label_map else (1, *size, channels)
    volume = np.random.default_rng(0).uniform(1, 1000, shape).astype(np.float32)
    request.inputs["volume"].CopyFrom(tf.make_tensor_proto(volume))
    (folder / WARM_UP_FILE).parent.mkdir()
    with tf.io.TFRecordWriter(str(folder / WARM_UP_FILE)) as file:
        file.write(log.SerializeToString())


def configuration(out, options, configs):
    """What configures a server for all versions of an export: (path, text).

    `models.config` of TensorFlow Serving or `config.pbtxt` of Triton, in the folder of the versions.

    Args:
        out: the folder of the export, `<name>/<version>`.
        options: `ExportOptions`.
        configs: of the networks.

    Raises:
        InputError: when another text is there: edited by hand, or of versions that differ in what they take or return.
    """
    folder = out.resolve().parent
    if options.format == "savedmodel":
        path, text = folder / "models.config", _TENSORFLOW_SERVING.format(name=folder.name)
    else:
        volume, probabilities = (", ".join(map(str, shape)) for shape in _shapes(configs))
        known = {"name": folder.name, "input": volume, "output": probabilities}
        known["output_name"] = get_network(configs[0].network.name).outputs
        path, text = folder / "config.pbtxt", _TRITON % known
    if path.exists() and path.read_text(errors="replace") != text:
        raise InputError(
            f"{path} holds other settings than this export's, for all versions beside it. Move it, to have it written "
            "anew, or export into the folder of another model."
        )
    return path, text


def write_configuration(path, text):
    """Writes what `configuration` returned."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _shapes(configs):
    """(H, W, D, C) of the volumes that the networks take together, and (H, W, D, K) of their probabilities."""
    size = configs[0].input_shape[:3]
    outputs = {"regions": REGIONS, "classes": CLASSES}[get_network(configs[0].network.name).outputs]
    return (*size, len(channels_of(configs))), (*size, len(outputs))


_TENSORFLOW_SERVING = """\
# tensorflow_model_server --model_config_file=models.config, with the folder of the versions as /models/{name}.
model_config_list {{
  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
  }}
}}
"""

_TRITON = """\
name: "%(name)s"
backend: "onnxruntime"
max_batch_size: 1
input [ { name: "volume" data_type: TYPE_FP32 dims: [ %(input)s ] } ]
output [ { name: "%(output_name)s" data_type: TYPE_FP32 dims: [ %(output)s ] } ]
model_warmup [
  {
    name: "random"
    batch_size: 1
    inputs { key: "volume" value { data_type: TYPE_FP32 dims: [ %(input)s ] random_data: true } }
  }
]
"""
