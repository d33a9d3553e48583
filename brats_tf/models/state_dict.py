"""PyTorch's state dicts, read without running a pickle: names and arrays, and nothing else, come out.

A `.pth` file is a pickle, whose instructions may call any function. Here they are listed with the standard library's
`pickletools` and followed by hand: dicts, tuples, numbers and text are built, two names stand for "an ordered dict" and
"a tensor", and every other name or instruction refuses the file. Nothing is imported or called.
"""

import math
import pickletools
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brats_tf.errors import InputError, in_one_line

DTYPES = {
    "torch FloatStorage": "<f4",
    "torch HalfStorage": "<f2",
    "torch DoubleStorage": "<f8",
    "torch LongStorage": "<i8",
    "torch IntStorage": "<i4",
}
_MARK = object()
_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINSTRING", "SHORT_BINSTRING"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class _Name:
    """A name of a module, only ever compared."""

    text: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    count: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple


def read_state_dict(path):
    """{name: array} of a state dict that PyTorch saved, in its zip format or in the older one.

    Raises:
        InputError: when it is none, is damaged, or holds anything but tensors by their names.
    """
    path = Path(path)
    try:
        return _from_zip(path) if zipfile.is_zipfile(path) else _from_stream(path)
    except Exception as error:  # zipfile, zlib and the followed instructions raise whatever the damage leads to.
        raise InputError(f"{path} is no readable PyTorch state dict: {in_one_line(error)}.") from error


def _from_zip(path):
    with zipfile.ZipFile(path) as file:
        (listed,) = [name for name in file.namelist() if name.endswith("/data.pkl")] or [""]
        folder = listed.removesuffix("data.pkl")
        if not listed:
            raise ValueError("a zip without data.pkl")
        if f"{folder}byteorder" in file.namelist() and file.read(f"{folder}byteorder") != b"little":
            raise ValueError("numbers in big-endian order")
        described = _follow(file.read(listed))
        return _arrays(described, lambda storage: file.read(f"{folder}data/{storage.key}"))


def _from_stream(path):
    """The format before PyTorch 1.6: five pickles, then every storage with its number of elements before it."""
    with open(path, "rb") as file:
        _, _, _, described, keys = (_follow(file) for _ in range(5))
        if not isinstance(described, dict) or not isinstance(keys, list):
            raise ValueError("no dict of tensors")
        sizes = {tensor.storage.key: tensor.storage for tensor in described.values() if isinstance(tensor, _Tensor)}
        stored = {}
        for key in keys:
            count = int.from_bytes(file.read(8), "little")
            if key not in sizes or count != sizes[key].count:
                raise ValueError(f"expected a storage of {sizes[key].count} elements, received {count}")
            stored[key] = file.read(count * sizes[key].dtype.itemsize)
    return _arrays(described, lambda storage: stored[storage.key])


def _arrays(described, read):
    """The arrays of {name: _Tensor}; `read` gives the bytes of a storage."""
    if not isinstance(described, dict):
        raise ValueError("no dict of tensors")
    arrays = {}
    for name, tensor in described.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise ValueError(f"{name!r} is no tensor")
        numbers = np.frombuffer(read(tensor.storage), tensor.storage.dtype)
        count = math.prod(tensor.shape)
        strides = tuple(math.prod(tensor.shape[axis + 1 :]) for axis in range(len(tensor.shape)))
        if strides != tensor.strides and count > 1:
            raise ValueError(f"{name} is not stored in order")
        if not 0 <= tensor.offset <= tensor.offset + count <= len(numbers) == tensor.storage.count:
            raise ValueError(f"{name} needs {count} numbers from {tensor.offset} on, received {len(numbers)}")
        arrays[name] = numbers[tensor.offset : tensor.offset + count].reshape(tensor.shape)
    return arrays


def _follow(pickled):
    """What the instructions of one pickle build, up to its end."""
    stack, memo = [], {}
    for operation, argument, _ in pickletools.genops(pickled):
        name = operation.name
        if name == "STOP":
            return stack.pop()
        if name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        else:
            _build(name, argument, stack)
    raise ValueError("a pickle without an end")


def _build(name, argument, stack):
    """Follows one instruction that makes or fills a container."""
    if name in ("PROTO", "FRAME"):
        return
    if name == "MARK":
        stack.append(_MARK)
    elif name in ("EMPTY_DICT", "EMPTY_LIST"):
        stack.append({} if name == "EMPTY_DICT" else [])
    elif name == "TUPLE":
        stack.append(tuple(_since_mark(stack)))
    elif name in _TUPLES:
        stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
    elif name == "GLOBAL":
        stack.append(_Name(argument))
    elif name in ("SETITEM", "SETITEMS"):
        items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else _since_mark(stack)
        stack[-1].update(zip(items[::2], items[1::2], strict=True))
    elif name in ("APPEND", "APPENDS"):
        items = [stack.pop()] if name == "APPEND" else _since_mark(stack)
        stack[-1].extend(items)
    elif name == "BUILD":
        stack.pop()  # Attributes of the dict, such as the versions of its modules.
    elif name == "BINPERSID":
        stack.append(_storage(stack.pop()))
    elif name == "REDUCE":
        given, what = stack.pop(), stack.pop()
        stack.append(_made(what, given))
    else:
        raise ValueError(f"the instruction {name}")


def _since_mark(stack):
    place = len(stack) - 1 - stack[::-1].index(_MARK)
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _storage(described):
    """A storage from ("storage", its type, key, device, number of elements, ...)."""
    kind, what, key, _, count, *_ = described
    if kind != "storage" or not isinstance(what, _Name) or what.text not in DTYPES or not isinstance(key, str):
        raise ValueError(f"a storage of {getattr(what, 'text', what)}")
    return _Storage(key, np.dtype(DTYPES[what.text]), int(count))


def _made(what, given):
    """What a call would have made, for the two calls of a state dict."""
    name = getattr(what, "text", None)
    if name == "collections OrderedDict" and given in ((), ([],)):
        return {}
    if name == "torch._utils _rebuild_tensor_v2" and isinstance(given[0], _Storage):
        storage, offset, shape, strides = given[:4]
        return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))
    if name == "torch._utils _rebuild_parameter" and isinstance(given[0], _Tensor):
        return given[0]
    raise ValueError(f"a call of {name}")
