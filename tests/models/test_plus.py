"""`embedding-plus`: slabs, images, and a network in which the classifier matters."""

import keras
import numpy as np
import pytest
from keras import ops

from brats_tf.config.config import Config
from brats_tf.errors import InputError
from brats_tf.models import slabs
from brats_tf.models.build import build_network
from brats_tf.models.planes import MeanOfPlanes, blinded, with_planes
from brats_tf.models.plus import plus_network
from brats_tf.regions import MODALITIES

SHAPE = (32, 32, 8, 4)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    return plus_network(SHAPE)


@pytest.fixture(scope="module")
def volume():
    return np.random.default_rng(0).normal(size=(1, *SHAPE)).astype("float32")


def test_full_size_network_has_the_sizes_of_its_figure():
    config = Config.from_preset("embedding-plus", modalities=MODALITIES)
    found = build_network(config)
    sizes = {
        "planes": (192, 160, 36, 3),
        "images_to_batch": (192, 160, 3),
        "slabs_p1_stack": (96, 80, 36, 32),
        "slabs_p5_stack": (6, 5, 36, 160),
        "fuse_p2_add": (48, 40, 36, 64),
        "fuse_detail_add": (96, 80, 72, 32),
        "regions": (192, 160, 144, 3),
    }
    assert {name: found.get_layer(name).output.shape[1:] for name in sizes} == sizes
    assert found.count_params() == 6_296_746


def test_slabs_come_back_in_their_order():
    images = np.arange(2 * 3 * 4 * 5 * 3, dtype="float32").reshape(2, 3, 4, 5, 3)
    batch = slabs.SlabsToBatch()(images)
    np.testing.assert_array_equal(batch[5 + 2], images[1, :, :, 2])  # The second volume's third slab.
    np.testing.assert_array_equal(slabs.BatchToSlabs(5)(batch), images)


@pytest.mark.parametrize(("lit", "expected"), [(0, [0]), (3, [0, 1]), (4, [0, 1]), (5, [1]), (6, [1]), (11, [2])])
def test_an_image_sees_its_slab_and_a_slice_of_each_neighbour(lit, expected):
    volume = keras.Input((32, 32, 12, 1))
    network = keras.Model(volume, slabs.images(volume, slab=4))
    network.get_layer("images_conv").set_weights([np.ones((3, 3, 6, 1, 3)), np.zeros(3)])
    given = np.zeros((1, 32, 32, 12, 1), "float32")
    given[0, 16, 16, lit] = 1
    seen = ops.convert_to_numpy(network(given))
    assert sorted({int(slab) for slab in np.argwhere(seen)[:, 3]}) == expected


@pytest.mark.parametrize("slab", [1, 2, 3, 6])
@pytest.mark.slow
def test_other_slabs_give_the_same_output(slab):
    shape = (32, 32, 12, 2)
    assert plus_network(shape, slab=slab).output_shape == (None, 32, 32, 12, 3)


def test_a_classifier_without_the_finest_scale_fits():
    assert plus_network(SHAPE, backbone="convnext_tiny").output_shape == (None, 32, 32, 8, 3)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((32, 32, 10, 4), "must be a multiple of `slab`. Received: depth=10, slab=4"),
        ((48, 32, 8, 4), "multiples of 32. Received: 48x32x8"),
        ((32, 0, 8, 4), "multiples of 32. Received: 32x0x8"),
    ],
)
def test_volumes_that_do_not_fit_are_refused(shape, message):
    with pytest.raises(InputError, match=message):
        plus_network(shape)


def test_what_the_classifier_sees_changes_the_output(network, volume):
    regions, planes = with_planes(network)(volume)
    assert planes.shape == (1, 32, 32, 2, 3)
    blind = blinded(network)(volume)
    assert float(ops.max(ops.abs(regions - blind))) > 1e-3


def test_blinded_classifier_sees_no_slab_apart_from_the_others(network):
    random = np.random.default_rng(1)
    planes = random.normal(size=(1, 32, 32, 2, 3)).astype("float32")
    planes[:, :, :, 1] += 5
    mean = ops.convert_to_numpy(MeanOfPlanes()(planes))
    assert np.ptp(mean, axis=(1, 2, 3)).max() == 0
    np.testing.assert_allclose(mean[0, 0, 0, 0], planes[0].mean(axis=(0, 1, 2)), rtol=1e-5)


def test_every_modality_and_slice_reaches_the_output(network, volume):
    before = ops.convert_to_numpy(network(volume))
    for place in ((slice(None), slice(None), 0, 0), (slice(None), slice(None), 7, 3)):
        changed = volume.copy()
        changed[(0, *place)] += 3
        assert np.abs(ops.convert_to_numpy(network(changed)) - before).max() > 1e-4


@pytest.mark.parametrize("slab", [1, 3, 5, 9])
def test_the_detail_path_sees_every_slice(slab):
    lit = np.zeros((3 * slab, 8, 8, 3 * slab, 1), np.float32)
    for number in range(len(lit)):
        lit[number, 3:5, 3:5, number] = 1
    inputs = keras.Input(lit.shape[1:])
    path = keras.Model(inputs, slabs.detail_path(inputs, stride=slabs.detail_stride(slab)))
    seen = keras.Model(inputs, path.get_layer("detail_conv").output).predict(lit, verbose=0)
    assert (np.abs(seen).max(axis=(1, 2, 3, 4)) > 0).all()


def test_untrained_networks_draw_no_stripes(network, volume):
    kernel = network.get_layer("regions_up").kernel
    assert kernel.shape == (2, 2, 2, 3, 32) and float(ops.std(kernel)) > 0.05
    blocks = ops.convert_to_numpy(network(volume)).reshape(1, 16, 2, 16, 2, 4, 2, 3)
    assert np.ptp(blocks, axis=(2, 4, 6)).max() < 1e-6
