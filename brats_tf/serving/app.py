"""The HTTP application: NIfTI files in, a label map out, one case at a time through the networks."""

import asyncio
import logging
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from python_multipart.multipart import parse_options_header
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from brats_tf.errors import InputError, MemoryLack, WriteError
from brats_tf.regions import MODALITIES
from brats_tf.serving.label_maps import UPLOAD, LabelMapper

log = logging.getLogger(__name__)
BLOCK = 2**20
FULL = "The server's disk is full or cannot be written to."
RETRY_SECONDS = 5
UPLOADS = 32  # At once, or as many as may wait in the queue, where those are more.
IDLE_SECONDS = 30  # Without a byte, an upload is given up.
FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
ENDING = 1024  # Bytes that hold the last boundary of a form, and what a client may send after it.
CHARSETS = ("utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1")
CLOSED = 499  # As nginx counts it; nobody reads the answer.
SECONDS = (0.5, 1, 2, 5, 10, 20, 50, 100)  # The limits of the histogram.


def create_app(mapper: LabelMapper, options) -> Starlette:
    """The application of a `LabelMapper` and `ServeOptions`.

    - `POST /label-map`: a form with the NIfTI files of one case, named flair, t1, t1ce, t2 -> the label map, gzipped.
      What is wrong with a case is a sentence in {"error": ...}: 422; not a form 400, too slow 408, too large 413, too
      many at once 503.
    - `GET /health`: the networks, and how many cases wait.
    - `GET /metrics`: what Prometheus reads.
    """
    service = Service(mapper, options)
    routes = [
        Route("/label-map", service.label_map, methods=["POST"]),
        Route("/health", service.health),
        Route("/metrics", service.metrics),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: service.refuse, ClientDisconnect: service.gone})


class Service:
    """The handlers of `create_app`, and what they share."""

    def __init__(self, mapper, options):
        self.mapper, self.options, self.held, self.uploading = mapper, options, 0, 0
        self.networks = ThreadPoolExecutor(1)  # They hold the processor: cases wait in line for them.
        registry = self.registry = CollectorRegistry()
        self.answers = Counter("brats_tf_answers", "Answers by status.", ["status"], registry=registry)
        self.seconds = Histogram("brats_tf_seconds", "Seconds of a case.", registry=registry, buckets=SECONDS)
        waiting = Gauge("brats_tf_cases_held", "Cases that wait or are predicted.", registry=registry)
        waiting.set_function(lambda: self.held)

    async def label_map(self, request):
        """Predicts the case of one form."""
        self._check_free(self.held, self.options.queue, "wait")  # Before the files come, to spare them the way.
        started = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(prefix="brats_tf-") as folder:
                volumes = await self._received(request, Path(folder))
                self._check_free(self.held, self.options.queue, "wait")
                answer = await self._in_line(request, Path(folder), volumes)
        except OSError as error:
            log.warning(f"A case could not be kept: {error}")
            raise HTTPException(507, FULL) from None
        self.seconds.observe(time.monotonic() - started)
        self.answers.labels(200).inc()
        headers = {"X-Messages": " ".join(answer.messages)} if answer.messages else {}
        return Response(answer.content, media_type="application/gzip", headers=headers)

    async def health(self, request):
        """Says that it runs, with what."""
        del request
        return JSONResponse({"status": "ready", "networks": self.mapper.networks, "cases_held": self.held})

    async def metrics(self, request):
        """Counts and seconds in Prometheus's format."""
        del request
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

    async def refuse(self, request, error):
        """An error as JSON."""
        del request
        self.answers.labels(error.status_code).inc()
        return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)

    async def gone(self, request, error):
        """Ends a request whose sender is gone."""
        del request, error
        self.answers.labels(CLOSED).inc()
        return Response(status_code=CLOSED)

    def _check_free(self, taken, places, doing):
        if taken >= places:
            detail = f"{taken} cases {doing} already, as many as may; try again in {RETRY_SECONDS} s."
            raise HTTPException(503, detail, headers={"Retry-After": str(RETRY_SECONDS)})

    async def _in_line(self, request, folder, volumes):
        """The answer to a case, after those before it; whose sender leaves before its turn is not predicted."""
        self.held += 1
        job = self.networks.submit(self._predict, folder, volumes)
        answer, gone = asyncio.wrap_future(job), asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not gone.done():
                return await answer
            if not job.cancel():
                await asyncio.wait({answer})
            raise ClientDisconnect
        finally:
            job.cancel()
            gone.cancel()
            self.held -= 1

    async def _received(self, request, folder):
        """`_saved` within the time that an upload may take."""
        self._check_free(self.uploading, max(UPLOADS, self.options.queue), "are sent")
        self.uploading += 1
        try:
            return await asyncio.wait_for(self._saved(request, folder), self.options.upload_seconds)
        except asyncio.TimeoutError:  # An OSError from Python 3.11 on, which the disk has nothing to do with.
            detail = f"A case must come within {self.options.upload_seconds:g} s, without a pause of {IDLE_SECONDS} s."
            raise HTTPException(408, detail, headers={"Connection": "close"}) from None
        finally:
            self.uploading -= 1

    async def _saved(self, request, folder):
        """Writes the files of a form into a folder: {modality: path}."""
        if not request.headers.get("content-type", "").lower().startswith(FORMS):
            raise HTTPException(400, f"Expected a form with files named {', '.join(MODALITIES)}. Received: no form.")
        kind, parameters = parse_options_header(request.headers["content-type"])
        charset = parameters.get(b"charset", b"utf-8").decode("latin-1")
        if charset.lower() not in CHARSETS:
            raise HTTPException(400, f"Expected a form in UTF-8. Received: {charset}.")
        limit = self.options.upload_mb * 10**6
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise _too_large(self.options.upload_mb)
        last = b"--%s--" % parameters.get(b"boundary", b"") if kind.decode() == FORMS[0] else b""
        bounded = Request(request.scope, _at_most(request.receive, limit, self.options.upload_mb, last))
        volumes = {}
        async with bounded.form(max_files=len(MODALITIES), max_fields=len(MODALITIES)) as form:
            for name, upload in form.multi_items():
                if name not in MODALITIES or name in volumes or isinstance(upload, str):
                    expected = ", ".join(MODALITIES)
                    received = f"{name!r}{' as text' if isinstance(upload, str) else ''}"
                    raise HTTPException(422, f"Expected one file for each of {expected}. Received: {received}.")
                volumes[name] = folder / f"{UPLOAD}_{name}.nii.gz"
                with open(volumes[name], "wb") as file:
                    while block := await upload.read(BLOCK):
                        file.write(block)
        if not volumes:
            raise HTTPException(422, f"Expected files named {', '.join(MODALITIES)} in a form. Received: none.")
        return volumes

    def _predict(self, folder, volumes):
        try:
            return self.mapper.label_map(folder, volumes)
        except WriteError as error:
            log.warning(str(error))
            raise HTTPException(507, FULL) from None
        except MemoryLack as error:
            log.warning(str(error))
            raise HTTPException(503, "The server has too little memory for this case.") from None
        except InputError as error:
            raise HTTPException(422, str(error).replace(f"{folder}/", "").replace(str(folder), "the form")) from None


async def _disconnected(request):
    """Returns when the sender of a request that has come whole is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _at_most(receive, limit, megabytes, last):
    """`receive` of an ASGI application that refuses a body above the limit, whatever its header says.

    And one that ends without its `last` boundary: a part that was cut would else be missing in silence.
    """
    received, ending = 0, b""

    async def bounded():
        nonlocal received, ending
        message = await asyncio.wait_for(receive(), IDLE_SECONDS)
        body = message.get("body", b"")
        received += len(body)
        ending = (ending + body[-ENDING:])[-ENDING:]
        if received > limit:
            raise _too_large(megabytes)
        if message["type"] == "http.request" and not message.get("more_body") and last not in ending:
            raise MultiPartException("Expected a whole form. Received one without its end.")
        return message

    return bounded


def _too_large(megabytes):
    return HTTPException(413, f"A case may have {megabytes:g} MB. Received: more.")
