"""What TensorFlow Serving and Triton read beside an export, read by their own messages."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc
from tensorflow_serving.config import model_server_config_pb2
from tritonclient.grpc import model_config_pb2
from untrained_runs import untrained

from brats_tf.cli.main import main


@pytest.fixture(scope="module")
def served(runs, tmp_path_factory):
    """An ensemble for TensorFlow Serving: the folder of the version, and what is loaded from it."""
    out = tmp_path_factory.mktemp("models") / "ensemble" / "3"
    assert main(["export", *map(str, runs), "--serving", "--out", str(out)]) == 0
    return out, tf.saved_model.load(out)


class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers a `PredictRequest` as TensorFlow Serving does: by the signature that it names."""

    def __init__(self, loaded):
        self.loaded = loaded

    def Predict(self, request, context):
        inputs = {name: tf.constant(tf.make_ndarray(values)) for name, values in request.inputs.items()}
        answer = predict_pb2.PredictResponse()
        for name, values in self.loaded.signatures[request.model_spec.signature_name](**inputs).items():
            answer.outputs[name].CopyFrom(tf.make_tensor_proto(values))
        return answer


@contextmanager
def serve(loaded):
    server = grpc.server(ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(loaded), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)


@pytest.mark.slow
def test_tensorflow_serving_reads_its_configuration(served):
    out, _ = served
    text = (out.parent / "models.config").read_text()
    (model,) = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("ensemble", "/models/ensemble", "tensorflow")


@pytest.mark.slow
def test_the_warm_up_request_is_answered_through_grpc(served):
    out, loaded = served
    (record,) = tf.data.TFRecordDataset(str(out / "assets.extra" / "tf_serving_warmup_requests"))
    request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
    assert (request.model_spec.name, request.model_spec.signature_name) == ("ensemble", "label_map")
    with serve(loaded) as address, grpc.insecure_channel(address) as channel:
        answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request)
    labels = tf.make_ndarray(answer.outputs["labels"])
    volume = tf.make_ndarray(request.inputs["volume"])
    assert labels.shape == volume.shape[:3]
    np.testing.assert_array_equal(labels, loaded.label_map(volume)["labels"])


@pytest.mark.slow
def test_a_network_without_a_label_map_is_warmed_up_by_probabilities(tmp_path):
    run = untrained(tmp_path / "flair", modalities=("flair",), spacing_mm=2.0)
    out = tmp_path / "models" / "flair" / "1"
    assert main(["export", str(run), "--serving", "--out", str(out)]) == 0
    (record,) = tf.data.TFRecordDataset(str(out / "assets.extra" / "tf_serving_warmup_requests"))
    request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
    assert request.model_spec.signature_name == "probabilities"
    volume = tf.make_ndarray(request.inputs["volume"])
    loaded = tf.saved_model.load(out)
    assert loaded.probabilities(volume)["regions"].shape == (*volume.shape[:4], 3)


@pytest.mark.slow
def test_triton_reads_what_the_onnx_file_takes(runs, tmp_path):
    onnx = pytest.importorskip("onnx")
    out = tmp_path / "models" / "flair" / "1"
    assert main(["export", str(runs[0]), "--format", "onnx", "--serving", "--out", str(out)]) == 0
    config = text_format.Parse((out.parent / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("flair", "onnxruntime", 1)
    graph = onnx.load(out / "model.onnx").graph
    for mine, theirs in ((config.input, graph.input), (config.output, graph.output)):
        assert [(one.name, list(one.dims)) for one in mine] == [
            (one.name, [size.dim_value for size in one.type.tensor_type.shape.dim[1:]]) for one in theirs
        ]
    (warm_up,) = config.model_warmup
    assert list(warm_up.inputs["volume"].dims) == list(config.input[0].dims)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--out", "exported"], "--out must end in a version number"),
        (["--out", "models/0"], "Received: models/0"),
        (["--out", "models/1", "--format", "litert"], "no server here takes LiteRT files"),
    ],
)
def test_where_no_server_would_find_it_is_refused(runs, words, sentence, capsys):
    assert main(["export", str(runs[0]), "--serving", *words]) == 2
    assert sentence in capsys.readouterr().err
