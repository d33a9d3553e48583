import concurrent.futures
import errno
import gzip
import socket
import threading
import time

import httpx
import keras
import nibabel as nib
import numpy as np
import pytest
from untrained_runs import networks_of_two_convolutions, untrained

from brats_tf.cli.main import main
from brats_tf.config.execution import PostProcessing, ServeOptions
from brats_tf.errors import InputError
from brats_tf.inference.ensemble import load_ensemble
from brats_tf.inference.predict import predict_cases
from brats_tf.regions import BRATS_2017, BRATS_2023
from brats_tf.runtime.files import sha256_of

uvicorn = pytest.importorskip("uvicorn", reason="needs the extra `serve`")
app_module = pytest.importorskip("brats_tf.serving.app", reason="needs the extra `serve`")
label_maps = pytest.importorskip("brats_tf.serving.label_maps", reason="needs the extra `serve`")


@pytest.fixture(scope="module")
def predictors(tmp_path_factory):
    """Two networks, of FLAIR and of T1ce, untrained."""
    folder = tmp_path_factory.mktemp("runs")
    keras.utils.set_random_seed(0)
    with networks_of_two_convolutions():
        yield load_ensemble([untrained(folder / name, modalities=(name,)) for name in ("flair", "t1ce")])


@pytest.fixture
def mapper(predictors):
    return label_maps.LabelMapper(predictors, PostProcessing(), BRATS_2017)


@pytest.fixture
def serve(mapper):
    """A function (ServeOptions) -> address of a server in a thread of this process."""
    servers = []

    def start(options=ServeOptions(upload_mb=5)):  # noqa: B008
        listening = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(app_module.create_app(mapper, options), log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        servers.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join(10)


VOXELS = "Note: voxels of 6x6x6 mm, not resampled to 1 mm."


def files_of(case, *modalities):
    return {name: (case.volumes[name].name, case.volumes[name].read_bytes()) for name in modalities}


def labels_in(content, folder):
    path = folder / "answer.nii.gz"
    path.write_bytes(content)
    image = nib.load(path)
    return image.affine, np.asarray(image.dataobj)


def test_an_upload_gets_the_label_map_that_predict_writes(serve, predictors, phantoms, tmp_path):
    answer = httpx.post(f"{serve()}/label-map", files=files_of(phantoms[0], "flair", "t1ce"), timeout=60)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/gzip")
    predict_cases(predictors, phantoms[:1], out=tmp_path)
    written = nib.load(tmp_path / f"{phantoms[0].id}.nii.gz")
    affine, labels = labels_in(answer.content, tmp_path)
    np.testing.assert_array_equal(labels, np.asarray(written.dataobj))
    np.testing.assert_array_equal(affine, written.affine)
    assert answer.headers["x-messages"] == VOXELS


def test_a_missing_modality_is_said_in_a_header(serve, phantoms):
    answer = httpx.post(f"{serve()}/label-map", files=files_of(phantoms[0], "t1ce"), timeout=60)
    assert answer.status_code == 200
    assert answer.headers["x-messages"] == f"Case upload: flair missing, predicted from t1ce. {VOXELS}"


@pytest.mark.parametrize(
    ("files", "status", "words"),
    [
        ({}, 400, "Expected a form with files named flair, t1, t1ce, t2. Received: no form"),
        ({"flair": (None, "a.nii.gz")}, 422, "Received: 'flair' as text"),
        ({"flair": ("a.nii.gz", b"")}, 422, "upload_flair.nii.gz is no readable NIfTI file"),
        ({"flair": ("a.nii.gz", gzip.compress(b"no image" * 100))}, 422, "upload_flair.nii.gz is no readable NIfTI"),
        ({"flair": ("a.nii.gz", b"\x1f\x8b" + bytes(100))}, 422, "upload_flair.nii.gz"),
        ({"ct": ("a.nii.gz", b"1")}, 422, "Expected one file for each of flair, t1, t1ce, t2. Received: 'ct'"),
        ({"../../etc": ("../../x", b"1")}, 422, "Received: '../../etc'"),
        ([("flair", ("a", b"1")), ("flair", ("b", b"2"))], 422, "Expected one file for each"),
        ({"flair": ("a.nii.gz", bytes(6_000_000))}, 413, "A case may have 5 MB"),
        ({"flair": ("a.nii.gz", bytes(5_100_000))}, 413, "A case may have 5 MB"),
    ],
)
def test_a_wrong_upload_is_told_what_is_wrong(files, status, words, serve):
    answer = httpx.post(f"{serve()}/label-map", files=files, timeout=60)
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert "/" not in answer.json()["error"].replace("../../etc", "")


def test_damage_nan_and_size_are_the_sentences_of_the_command_line(serve, phantoms, tmp_path):
    address = serve()
    image = nib.load(phantoms[0].volumes["flair"])
    voxels = image.get_fdata().astype(np.float32)
    voxels[3, 3, 3] = np.nan
    nib.save(nib.Nifti1Image(voxels, image.affine), tmp_path / "nan.nii.gz")
    header = image.header.copy()
    header.set_data_shape((2000, 2000, 2000))
    header["vox_offset"] = 352
    huge = gzip.compress(header.binaryblock + bytes(1000))
    whole = phantoms[0].volumes["flair"].read_bytes()
    for content, words in (
        ((tmp_path / "nan.nii.gz").read_bytes(), "upload_flair.nii.gz"),
        (whole[:-300], "is damaged or truncated"),
        (huge, "too many voxels, with 2000x2000x2000 in upload_flair.nii.gz"),
    ):
        answer = httpx.post(f"{address}/label-map", files={"flair": ("a.nii.gz", content)}, timeout=60)
        assert answer.status_code == 422
        error = answer.json()["error"]
        assert error.startswith("Case upload: ") and "upload_flair.nii.gz" in error and words in error


def test_a_body_that_lies_about_its_size_is_stopped(serve):
    def body():
        yield b'--x\r\nContent-Disposition: form-data; name="flair"; filename="a"\r\n\r\n'
        for _ in range(20):
            yield bytes(1_000_000)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = httpx.post(f"{serve()}/label-map", content=body(), headers=headers, timeout=60)
    assert answer.status_code == 413


@pytest.mark.slow
@pytest.mark.parametrize(("idle", "whole"), [(8.0, 60.0), (60.0, 8.0)])
def test_uploads_that_stall_are_given_up_and_keep_nobody_from_the_queue(serve, phantoms, monkeypatch, idle, whole):
    monkeypatch.setattr(app_module, "IDLE_SECONDS", idle)
    monkeypatch.setattr(app_module, "UPLOADS", 2)
    address = serve(ServeOptions(queue=1, upload_mb=5, upload_seconds=whole))
    host, port = address.removeprefix("http://").split(":")
    head = b"POST /label-map HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
    head += b"Content-Type: multipart/form-data; boundary=B\r\n\r\n--B\r\n"
    with socket.create_connection((host, int(port))) as one, socket.create_connection((host, int(port))) as other:
        for stalled in (one, other):
            stalled.settimeout(60)
            stalled.sendall(head)
        time.sleep(0.1)
        assert httpx.get(f"{address}/health").json()["cases_held"] == 0
        refused = httpx.post(f"{address}/label-map", files=files_of(phantoms[0], "flair"), timeout=60)
        assert refused.status_code == 503 and "2 cases are sent already" in refused.json()["error"]
        assert b"408" in one.recv(100) and b"408" in other.recv(100)
    answer = httpx.post(f"{address}/label-map", files=files_of(phantoms[0], "flair"), timeout=60)
    assert answer.status_code == 200


def test_labels_and_steps_are_those_that_were_asked_for(predictors, phantoms, monkeypatch, tmp_path):
    """A prediction of enhancing tumour alone, in one voxel of 216 mm3."""
    found = np.zeros((*predictors[0].config.data.crop, 3), np.float32)
    found[16, 16, 12] = 1
    monkeypatch.setattr(type(predictors[0]), "predict", lambda self, volume: found.copy())
    answers = {}
    for convention, steps in ((BRATS_2017, {}), (BRATS_2023, {}), (BRATS_2023, {"drop_et_below_ml": 1.0})):
        one = label_maps.LabelMapper(predictors, PostProcessing(**steps), convention)
        content = one.label_map(tmp_path, dict(phantoms[0].volumes)).content
        answers[convention.name, bool(steps)] = set(np.unique(labels_in(content, tmp_path)[1]).tolist()) - {0}
    assert list(answers.values()) == [{4}, {3}, {1}]


def test_voxels_of_all_files_count_together(mapper, phantoms, tmp_path, monkeypatch):
    volumes = {name: phantoms[0].volumes[name] for name in ("flair", "t1ce")}
    voxels = int(np.prod(nib.load(volumes["flair"]).shape))
    monkeypatch.setattr(label_maps, "MOST_VOXELS", 2 * voxels)
    mapper.label_map(tmp_path, volumes)
    monkeypatch.setattr(label_maps, "MOST_VOXELS", 2 * voxels - 1)
    with pytest.raises(InputError, match="too many voxels, with .* in .*t1ce"):
        mapper.label_map(tmp_path, volumes)


def test_eight_clients_get_their_own_answers_and_one_that_leaves_costs_nothing(serve, phantoms, tmp_path):
    address = serve()
    alone = [httpx.post(f"{address}/label-map", files=files_of(case, "flair"), timeout=60).content for case in phantoms]

    def client(number):
        case = number % len(phantoms)
        if number % 5 == 4:
            bad = httpx.post(f"{address}/label-map", files={"flair": ("a", b"no")}, timeout=60)
            return bad.status_code == 422
        if number % 7 == 6:
            with pytest.raises(httpx.TimeoutException):
                httpx.post(f"{address}/label-map", files=files_of(phantoms[case], "flair"), timeout=0.001)
            return True
        answer = httpx.post(f"{address}/label-map", files=files_of(phantoms[case], "flair"), timeout=60)
        return answer.content == alone[case]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(client, range(24)))
    while httpx.get(f"{address}/health").json()["cases_held"]:
        time.sleep(0.05)
    metrics = httpx.get(f"{address}/metrics").text
    assert 'brats_tf_answers_total{status="422"} 4.0' in metrics
    assert "brats_tf_seconds_count" in metrics


def test_more_than_may_wait_are_told_to_come_again(serve, mapper, phantoms, monkeypatch):
    release = threading.Event()
    label_map = mapper.label_map
    monkeypatch.setattr(mapper, "label_map", lambda *given: (release.wait(30), label_map(*given))[1])
    address = serve(ServeOptions(queue=2, upload_mb=5))

    def post():
        return httpx.post(f"{address}/label-map", files=files_of(phantoms[0], "flair"), timeout=60)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        held = [pool.submit(post) for _ in range(2)]
        while httpx.get(f"{address}/health").json()["cases_held"] < 2:
            time.sleep(0.02)
        refused = post()
        release.set()
        assert [one.result().status_code for one in held] == [200, 200]
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "5"
    assert "2 cases wait already" in refused.json()["error"]
    assert post().status_code == 200


def test_who_leaves_gives_up_the_place_and_is_not_predicted(serve, mapper, phantoms, monkeypatch):
    release, calls, label_map = threading.Event(), [], mapper.label_map
    monkeypatch.setattr(mapper, "label_map", lambda *given: (calls.append(1), release.wait(30), label_map(*given))[2])
    address = serve()

    def post(timeout):
        return httpx.post(f"{address}/label-map", files=files_of(phantoms[0], "flair"), timeout=timeout)

    def held():
        return httpx.get(f"{address}/health").json()["cases_held"]

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        stays = pool.submit(post, 60)
        while held() < 1:
            time.sleep(0.02)
        for _ in range(2):
            with pytest.raises(httpx.TimeoutException):
                post(0.3)
        until = time.monotonic() + 10
        while held() > 1:
            assert time.monotonic() < until
            time.sleep(0.02)
        release.set()
        assert stays.result().status_code == 200
    assert calls == [1]
    metrics = httpx.get(f"{address}/metrics").text
    assert 'answers_total{status="499"} 2.0' in metrics and 'answers_total{status="200"} 1.0' in metrics


def test_too_little_memory_is_the_server_s_and_says_nothing_of_its_folders(serve, phantoms, monkeypatch):
    def scarce(*given, **named):
        raise MemoryError

    monkeypatch.setattr(label_maps, "write_volume", scarce)
    answer = httpx.post(f"{serve()}/label-map", files=files_of(phantoms[0], "flair"), timeout=60)
    assert (answer.status_code, answer.json()) == (503, {"error": "The server has too little memory for this case."})


def test_a_full_disk_is_said_without_its_place(serve, mapper, phantoms, monkeypatch):
    def full(*given):
        raise app_module.WriteError("/secret/place could not be written: No space left on device.")

    monkeypatch.setattr(mapper, "label_map", full)
    answer = httpx.post(f"{serve()}/label-map", files=files_of(phantoms[0], "flair"), timeout=60)
    assert (answer.status_code, "secret" in answer.text) == (507, False)


def test_a_full_disk_while_a_file_comes_in_is_said_too(serve, phantoms, monkeypatch):
    class Full:
        def __init__(self, **given):
            raise OSError(errno.ENOSPC, "No space left on device", "/secret/place")

    monkeypatch.setattr(app_module.tempfile, "TemporaryDirectory", Full)
    answer = httpx.post(f"{serve()}/label-map", files=files_of(phantoms[0], "flair"), timeout=60)
    assert (answer.status_code, answer.json()) == (507, {"error": app_module.FULL})
    assert "cases_held 0.0" in httpx.get(f"{serve()}/metrics").text


def test_the_command_listens_on_this_machine_alone(predictors, monkeypatch, capsys):
    listened = []
    monkeypatch.setattr(
        uvicorn.Server, "run", lambda server, sockets: listened.extend(one.getsockname() for one in sockets)
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["serve", "--runs", str(predictors[0].run.parent), "--networks", "flair,t1ce", "--port", str(port)]
    assert main(words) == 0
    assert listened == [("127.0.0.1", port)]
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert main(words) == 2
    assert f"--port {port} cannot be listened on: Address already in use" in capsys.readouterr().err
    assert len(listened) == 1


def test_a_form_that_lacks_its_end_is_refused(serve, phantoms):
    """What was cut would be a modality that is missing in silence."""
    address = f"{serve()}/label-map"
    request = httpx.Request("POST", address, files=files_of(phantoms[0], "flair", "t1ce"))
    whole, headers = request.read(), {"content-type": request.headers["content-type"]}
    for cut in (len(whole), len(whole) - 2):  # RFC 2046 asks for no line end after the last boundary.
        assert httpx.post(address, content=whole[:cut], headers=headers, timeout=60).status_code == 200
    assert httpx.post(address, content=whole + b"an epilogue", headers=headers, timeout=60).status_code == 200
    for cut in (4, 1000):
        answer = httpx.post(address, content=whole[:-cut], headers=headers, timeout=60)
        assert (answer.status_code, "Received one without its end" in answer.json()["error"]) == (400, True)
    headers["content-type"] += "; charset=undefined"
    answer = httpx.post(address, content=whole, headers=headers, timeout=60)
    assert (answer.status_code, "form in UTF-8" in answer.json()["error"]) == (400, True)


def test_a_case_that_fits_no_network_says_nothing_of_the_server_s_folders(serve, phantoms):
    answer = httpx.post(f"{serve()}/label-map", files=files_of(phantoms[0], "t2"), timeout=60)
    assert answer.status_code == 422
    assert answer.json()["error"] == "Case upload: no network fits; expected flair, t1ce in the form, found t2."


def test_the_networks_are_told_with_the_hashes_of_their_weights(serve, predictors):
    told = httpx.get(f"{serve()}/health").json()["networks"]
    assert told == {one.name: sha256_of(one.weights.path) for one in predictors}
