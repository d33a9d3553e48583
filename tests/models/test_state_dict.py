"""PyTorch's files: written by hand, and by PyTorch itself where it is installed; what could run code is refused."""

import importlib.util
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from brats_tf.errors import InputError
from brats_tf.models.state_dict import read_state_dict

ORDERED_DICT = b"ccollections\nOrderedDict\n)R"
KINDS = {"float32": b"FloatStorage", "int64": b"LongStorage"}


def word(value):
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def number(value):
    return b"J" + int(value).to_bytes(4, "little", signed=True)


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key, array, *, more=b""):
    kind = b"ctorch\n" + KINDS[str(array.dtype)] + b"\n"
    return b"(" + word("storage") + kind + word(key) + word("cpu") + number(array.size) + more + b"tQ"


def tensor(key, array, **more):
    strides = [step // array.itemsize for step in array.strides]
    said = storage(key, array, **more) + number(0) + numbers(array.shape) + numbers(strides) + b"\x89" + ORDERED_DICT
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + said + b"tR"


def described(arrays, **more):
    items = (word(name) + tensor(str(key), array, **more) for key, (name, array) in enumerate(arrays.items()))
    return b"\x80\x02" + ORDERED_DICT + b"(" + b"".join(items) + b"u."


def write_zip(path, arrays, pickled=None):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickled or described(arrays))
        for key, array in enumerate(arrays.values()):
            file.writestr(f"archive/data/{key}", array.tobytes())
    return path


def write_stream(path, arrays):
    keys = b"\x80\x02](" + b"".join(word(str(key)) for key in range(len(arrays))) + b"e."
    small = b"\x80\x02" + number(1) + b"."
    stored = b"".join(array.size.to_bytes(8, "little") + array.tobytes() for array in arrays.values())
    path.write_bytes(small * 3 + described(arrays, more=b"N") + keys + stored)
    return path


@pytest.fixture
def arrays():
    random = np.random.default_rng(0)
    shapes = {"conv1.weight": (4, 3, 7, 7), "bn1.bias": (4,), "scalar": ()}
    made = {name: random.standard_normal(shape).astype("float32") for name, shape in shapes.items()}
    return {name: np.asarray(array) for name, array in made.items()} | {"bn1.num_batches_tracked": np.array(7)}


@pytest.mark.parametrize("write", [write_zip, write_stream])
def test_names_shapes_and_numbers_come_back(arrays, tmp_path, write):
    got = read_state_dict(write(tmp_path / "x.pth", arrays))
    assert list(got) == list(arrays)
    for name, array in arrays.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)


@pytest.mark.parametrize(
    ("pickled", "sentence"),
    [
        (b"\x80\x02cos\nsystem\n(" + word("touch executed") + b"tR.", "a call of os system"),
        (b"\x80\x02cbuiltins\neval\n(" + word("1") + b"tR.", "a call of builtins eval"),
        (b"\x80\x02(" + word("touch executed") + b"ios\nsystem\n.", "the instruction INST"),
        (b"\x80\x04" + word("os") + word("system") + b"\x93.", "the instruction STACK_GLOBAL"),
        (b"\x80\x02}" + word("x") + b"ctorch\nQInt8Storage\ns.", "'x' is no tensor"),
        (b"\x80\x02].", "no dict of tensors"),
        (b"\x80\x02}", "no readable PyTorch state dict"),
        (b"\x80\x02}h\x05.", "no readable PyTorch state dict"),
        (b"u.", "no readable PyTorch state dict"),
        (b"\x80\x02" + number(1) + b"(" + word("x") + number(1) + b"u.", "no readable PyTorch state dict"),
    ],
)
def test_what_is_no_state_dict_is_refused_and_runs_nothing(arrays, tmp_path, monkeypatch, pickled, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=sentence):
        read_state_dict(write_zip(tmp_path / "x.pth", arrays, pickled))
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]


def test_parameters_are_tensors(arrays, tmp_path):
    name, array = "bn1.bias", arrays["bn1.bias"]
    parameter = b"ctorch._utils\n_rebuild_parameter\n(" + tensor("0", array) + b"\x88" + ORDERED_DICT + b"tR"
    pickled = b"\x80\x02" + ORDERED_DICT + b"(" + word(name) + parameter + b"u."
    got = read_state_dict(write_zip(tmp_path / "x.pth", {name: array}, pickled))
    np.testing.assert_array_equal(got[name], array)


def test_damaged_files_are_refused(arrays, tmp_path):
    for write in (write_zip, write_stream):
        whole = write(tmp_path / "x.pth", arrays).read_bytes()
        for cut in (0, 10, len(whole) // 2, len(whole) - 30):
            (tmp_path / "cut.pth").write_bytes(whole[:cut])
            with pytest.raises(InputError, match=r"cut.pth is no readable PyTorch state dict"):
                read_state_dict(tmp_path / "cut.pth")
    short = write_zip(tmp_path / "short.pth", arrays | {"bn1.bias": arrays["bn1.bias"]}, described(arrays))
    with zipfile.ZipFile(short, "w") as file:
        file.writestr("archive/data.pkl", described(arrays))
        file.writestr("archive/data/0", b"\0" * 8)
    with pytest.raises(InputError, match="conv1.weight needs 588 numbers from 0 on, received 2"):
        read_state_dict(short)


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.slow
def test_files_of_pytorch_itself(tmp_path, new):
    if not importlib.util.find_spec("torch"):
        pytest.skip("PyTorch is not installed (extra `bench`)")
    program = (
        "import sys, numpy, torch; folder, new = sys.argv[1], sys.argv[2] == 'True'; torch.manual_seed(0)\n"
        "net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))\n"
        "state = net.state_dict()\n"
        "torch.save(state, folder + '/x.pth', _use_new_zipfile_serialization=new)\n"
        "numpy.savez(folder + '/x.npz', **{name: value.numpy() for name, value in state.items()})"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path), str(new)], check=True, capture_output=True)
    got, expected = read_state_dict(tmp_path / "x.pth"), np.load(tmp_path / "x.npz")
    assert list(got) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array)
