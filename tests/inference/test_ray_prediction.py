"""Every process of a cluster finds room."""

import math

import pytest

from brats_tf.inference.ray_prediction import share_of


@pytest.mark.parametrize(
    ("machines", "count", "share"),
    [
        ([{"CPU": 2.0}], 1, (2, 0)),
        ([{"CPU": 2.0}], 4, (0.5, 0)),
        ([{"CPU": 2.0}, {"CPU": 6.0}], 2, (3, 0)),  # Both on the larger one; of 4 cores, only one would find room.
        ([{"CPU": 4.0}, {"CPU": 4.0}, {}], 2, (4, 0)),  # A head without cores.
        ([{"CPU": 1.0}], 3, (0.3333, 0)),
        ([{"CPU": 8.0, "GPU": 2.0}], 2, (4, 1)),
        ([{"CPU": 8.0, "GPU": 2.0}], 3, (2, 0.5)),
        ([{"CPU": 8.0, "GPU": 4.0}, {"CPU": 6.0}], 4, (2, 1)),
    ],
)
def test_a_share_is_as_large_as_leaves_room_for_all(machines, count, share):
    found = share_of(machines, count)
    assert (found["num_cpus"], found["num_gpus"]) == pytest.approx(share)
    room = 0
    for one in machines:
        rooms = [math.floor(one.get(kind, 0) / found[name] + 1e-6) for kind, name in KINDS if found[name]]
        room += min(rooms)
    assert room >= count


KINDS = (("CPU", "num_cpus"), ("GPU", "num_gpus"))
