"""The command that answers over HTTP; see `commands`."""

import logging
import socket
from contextlib import suppress

from brats_tf.cli import options
from brats_tf.cli.arguments import postprocessing_given, runs_given, section_given
from brats_tf.cli.commands import Command, add_checkpoint
from brats_tf.config.execution import ForwardOptions, PostProcessing, ServeOptions
from brats_tf.errors import InputError
from brats_tf.regions import CONVENTIONS
from brats_tf.runtime.libraries import need_libraries

log = logging.getLogger(__name__)


def serve(given):
    """Answer NIfTI uploads with label maps, over HTTP.

    POST /label-map takes a form with the files of one case, named flair, t1, t1ce, t2, and returns its label map as
    predict writes it. GET /health and GET /metrics tell how it goes. It listens on this machine alone, unless --host
    says otherwise, and has neither passwords nor encryption. Needs the extra `serve`. For research; not a medical
    device.

    brats-tf serve --runs runs --preset embedding
    """
    need_libraries("serve", "uvicorn", "starlette", "python_multipart", "prometheus_client")
    from brats_tf.runtime.tensorflow import import_tensorflow

    import_tensorflow()
    import uvicorn

    from brats_tf.inference.ensemble import load_ensemble
    from brats_tf.serving.app import create_app
    from brats_tf.serving.label_maps import LabelMapper

    runs, serving = runs_given(given), section_given(given, ServeOptions)
    predictors = load_ensemble(runs, given.checkpoint, forward=section_given(given, ForwardOptions))
    mapper = LabelMapper(predictors, postprocessing_given(given, runs), CONVENTIONS[serving.convention])
    with _bound(serving.host, serving.port) as listening:  # Before minutes of work that nobody could reach.
        mapper.warm_up()
        log.info(f"Listening on http://{serving.host}:{serving.port} with {', '.join(mapper.networks)}.")
        server = uvicorn.Server(uvicorn.Config(create_app(mapper, serving), log_config=None, log_level="warning"))
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])


def _bound(host, port):
    """A socket that is bound to an address. Raises `InputError` where that is not possible."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise InputError(f"--host {host} --port {port} cannot be listened on: {error.strerror or error}.") from error


def _serve_options(parser):
    options.add_networks(parser)
    add_checkpoint(parser)
    for section in (ServeOptions, ForwardOptions, PostProcessing):
        options.add_settings(parser, section)
    options.add_tuned(parser)
    parser.set_defaults(phantoms=False)


COMMANDS = (Command("serve", serve, _serve_options),)
