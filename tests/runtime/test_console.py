import logging

from brats_tf.runtime.console import cell, console, printable, show_log, track
from brats_tf.runtime.program import run_program

STEERING = "a\x1b[31mred\r\n:b: [bold]x[/bold]\x9b\u202e"


def test_a_name_cannot_steer_the_terminal(capsys):
    show_log()
    logging.getLogger("brats_tf").info(STEERING)
    said = capsys.readouterr().out
    assert said == "a\\x1b[31mred\\r\n:b: [bold]x[/bold]\\x9b\\u202e\n"

    def fail():
        raise OSError(2, "No such file", STEERING)

    assert run_program("brats-tf", fail) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_a_cell_of_a_table_shows_a_name_as_it_is(capsys):
    console.print(cell("[bold]a[/bold]\x1b :b:"))
    assert capsys.readouterr().out == "[bold]a[/bold]\\x1b :b:\n"
    assert printable("é 1\n2") == "é 1\n2"


def test_too_little_memory_is_a_sentence(capsys):
    def fail():
        raise MemoryError

    assert run_program("brats-tf", fail) == 2
    assert capsys.readouterr().err == "brats-tf: this machine has too little memory for it.\n"


def test_a_progress_bar_shows_a_name_as_it_is(capsys):
    assert list(track([1], "Reading a[/b] [bold]c\x1b")) == [1]
    assert "Reading a[/b] [bold]c\\x1b" in capsys.readouterr().out
