import keras
import pytest

from brats_tf.models import precision
from brats_tf.models.plus import plus_network

THIN = ("images_conv", "planes_scaling", "detail_conv", "regions_up", "planes")


@pytest.mark.parametrize("on_gpu", [False, True])
def test_the_classifier_and_thin_convolutions_compute_in_float32_unless_a_gpu_computes(on_gpu, monkeypatch):
    monkeypatch.setattr(precision, "on_gpu", lambda: on_gpu)
    with precision.dtype_policy("mixed_bfloat16"):
        network = plus_network((32, 32, 8, 2))
    assert keras.config.dtype_policy().name == "float32"
    expected = "bfloat16" if on_gpu else "float32"
    found = {name: network.get_layer(name).compute_dtype for name in THIN}
    assert found == dict.fromkeys(THIN, expected)
    classifier = next(layer for layer in network.layers if isinstance(layer, keras.Model))
    assert {layer.compute_dtype for layer in classifier.layers} == {expected}
    for name in ("slabs_p1_reduce", "fuse_p2_conv1", "detail_conv1", "fuse_detail_norm2"):
        assert network.get_layer(name).compute_dtype == "bfloat16"
    assert network.output.dtype == "float32"
