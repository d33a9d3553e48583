"""The one exception that is a sentence to a person."""


class InputError(ValueError):
    """Bad input, said in one sentence: what, where, what was expected, what was received.

    The command line prints the sentence alone and leaves with exit code 2.
    """
