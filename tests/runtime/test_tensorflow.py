import errno

import pytest

from brats_tf.runtime.tensorflow import as_os_error, import_tensorflow

tf = import_tensorflow()


@pytest.mark.parametrize(
    ("message", "number", "sentence"),
    [
        ("{{function_node __wrapped__SaveV2}} /x; No space left on device [Op:SaveV2]", errno.ENOSPC, "No space left"),
        ("/x; Permission denied", errno.EACCES, "Permission denied"),
        ("{{node a}} something else", None, "something else"),
    ],
)
def test_an_error_of_a_writer_is_what_it_was_before(message, number, sentence):
    error = as_os_error(tf.errors.ResourceExhaustedError(None, None, message))
    assert error.errno == number
    assert (error.strerror or str(error)).startswith(sentence)
