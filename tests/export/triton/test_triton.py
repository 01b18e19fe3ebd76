"""Writing Triton repositories; `tests.mtcp_serve.clients.test_triton` has a real Triton load them."""

import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import typer
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb
from typer.testing import CliRunner, Result

from export.errors import ExportError
from export.triton import BACKENDS, Backend, Serving, local, write_repository
from export.triton.cli import app
from mtcp_serve.bundle import DEFAULT_BUNDLE
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import DepthTask, Manifest
from mtcp_serve.errors import BundleError
from tests.mtcp_serve.confident import make_confident_bundle
from tests.mtcp_serve.support import GRAPH, HEIGHT, TASKS, WIDTH, make_bundle, put_weights_apart
from tests.needs import needs_triton

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "built.plan"
    path.write_bytes(b"ftrt".ljust(24, b"\0") + bytes([10, 13, 3, 9]).ljust(40, b"\0"))
    return path


def config(folder: Path) -> Any:
    return text_format.Parse((folder / "config.pbtxt").read_text(), pb.ModelConfig())


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("backend", BACKENDS)
def test_committed_configs_are_what_the_shipped_bundle_gives(backend: Backend, tmp_path: Path) -> None:
    """If this fails: ``make model_repository``."""
    folder = write_repository(Bundle.open(DEFAULT_BUNDLE), tmp_path, backend=backend, config_only=True)
    committed = ROOT / "model_repository" / backend / folder.name / "config.pbtxt"
    assert committed.read_text() == (folder / "config.pbtxt").read_text()
    assert [path.name for path in folder.iterdir()] == ["config.pbtxt"]


def test_the_config_says_what_the_manifest_says(bundle: Path, tmp_path: Path) -> None:
    serving = Serving(
        instances=2,
        device="cpu",
        threads=3,
        max_batch=4,
        queue_delay_us=500,
        queue_size=7,
        queue_timeout_ms=250,
        latest=2,
    )
    folder = write_repository(Bundle.open(bundle), tmp_path / "repository", backend="python", serving=serving)
    found = config(folder)
    assert (found.name, found.backend, found.max_batch_size) == ("tiny", "python", 4)
    size = [HEIGHT, WIDTH]
    (image,) = found.input
    assert (image.name, image.data_type, list(image.dims)) == ("image", pb.TYPE_UINT8, [*size, 3])
    assert [(out.name, out.data_type, list(out.dims)) for out in found.output] == [
        ("semseg", pb.TYPE_UINT8, size),
        ("depth_metres", pb.TYPE_FP32, size),
        ("normals", pb.TYPE_FP32, [*size, 3]),
        ("saliency", pb.TYPE_FP32, size),
        ("parsing", pb.TYPE_UINT8, size),
    ]
    (group,) = found.instance_group
    assert (group.kind, group.count) == (pb.ModelInstanceGroup.KIND_CPU, 2)
    assert found.dynamic_batching.max_queue_delay_microseconds == 500
    policy = found.dynamic_batching.default_queue_policy
    assert policy.timeout_action == pb.ModelQueuePolicy.REJECT
    assert (policy.max_queue_size, policy.default_timeout_microseconds) == (7, 250_000)
    assert policy.allow_timeout_override
    assert found.version_policy.latest.num_versions == 2
    (warmup,) = found.model_warmup
    assert (warmup.batch_size, list(warmup.inputs["image"].dims)) == (1, [*size, 3])
    assert warmup.inputs["image"].random_data
    manifest = Manifest.model_validate_json(found.parameters["manifest.7"].string_value)
    assert manifest == Manifest.load(bundle)
    assert found.parameters["threads"].string_value == "3"


@pytest.mark.parametrize(
    ("backend", "files"),
    [
        ("onnxruntime", {"manifest.json", "model.onnx"}),
        ("python", {"manifest.json", "model.onnx", "model.py"}),
    ],
)
def test_a_version_has_its_files(bundle: Path, tmp_path: Path, backend: Backend, files: set[str]) -> None:
    folder = write_repository(Bundle.open(bundle), tmp_path, backend=backend)
    assert {path.name for path in (folder / "7").iterdir()} == files
    assert (folder / "7" / "model.onnx").read_bytes() == (bundle / "model.onnx").read_bytes()
    assert Manifest.load(folder / "7") == Manifest.load(bundle)
    assert config(folder).version_policy.HasField("all")


def test_fp16_maps_and_weights_apart(tmp_path: Path) -> None:
    graph = GRAPH.replace("float[batch, 24, 32] depth_metres", "float16[batch, 24, 32] depth_metres").replace(
        "depth_metres = Mul (metres, used)",
        "full = Mul (metres, used)\n    depth_metres = Cast <to = 10> (full)",
    )
    tasks = (
        TASKS[0],
        DepthTask(name="depth", output="depth_metres", range=(0.1, 10.0), dtype="float16"),
        *TASKS[2:],
    )
    bundle = make_bundle(tmp_path / "tiny", graph, tasks)
    weights = put_weights_apart(bundle, "weights.bin")
    with Bundle.open(bundle).edit() as draft:
        draft.record_parity("note", {})
    folder = write_repository(Bundle.open(bundle), tmp_path / "repository", backend="onnxruntime")
    assert config(folder).output[1].data_type == pb.TYPE_FP16
    assert (folder / "7" / "weights.bin").read_bytes() == weights.read_bytes()
    files = ["manifest.json", "model.onnx", "weights.bin"]
    assert sorted(path.name for path in (folder / "7").iterdir()) == files


def test_confidences_are_outputs_of_their_own_size(tmp_path: Path) -> None:
    bundle = Bundle.open(make_confident_bundle(tmp_path / "tiny"))
    found = config(write_repository(bundle, tmp_path / "repository", backend="onnxruntime"))
    assert [(out.name, out.data_type, list(out.dims)) for out in found.output[5:]] == [
        ("semseg_confidence", pb.TYPE_FP32, [HEIGHT // 2, WIDTH // 2]),
        ("how_sure", pb.TYPE_FP32, [HEIGHT, WIDTH]),
    ]


def test_plans_for_several_gpus(bundle: Path, plan: Path, tmp_path: Path) -> None:
    out = tmp_path / "repository"
    folder = write_repository(Bundle.open(bundle), out, backend="tensorrt", plans={"8.9": plan, "9.0": plan})
    found = config(folder)
    assert dict(found.cc_model_filenames) == {"8.9": "model_sm89.plan", "9.0": "model_sm90.plan"}
    assert found.instance_group[0].kind == pb.ModelInstanceGroup.KIND_GPU
    assert {path.name for path in (folder / "7").iterdir()} == {
        "manifest.json",
        "model_sm89.plan",
        "model_sm90.plan",
    }
    assert found.default_model_filename == "model_sm89.plan"


def test_plans_of_other_versions_stay_in_use(bundle: Path, plan: Path, tmp_path: Path) -> None:
    for version, capability in ((1, "7.5"), (2, "8.9"), (3, "8.9")):
        folder = write_repository(
            Bundle.open(bundle), tmp_path, backend="tensorrt", version=version, plans={capability: plan}
        )
    found = config(folder)
    assert dict(found.cc_model_filenames) == {"7.5": "model_sm75.plan", "8.9": "model_sm89.plan"}
    assert found.default_model_filename == "model_sm89.plan"
    write_repository(Bundle.open(bundle), tmp_path, backend="tensorrt", version=1, plans={"8.9": plan})
    assert dict(config(folder).cc_model_filenames) == {"8.9": "model_sm89.plan"}


def test_the_folder_around_the_repository_may_belong_to_somebody_else(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "repository"
    out.mkdir()
    mkdir, access = os.mkdir, os.access

    def guarded(path: Path, mode: int = 0o777) -> None:
        if path.parent == tmp_path and path != out:
            raise PermissionError(13, "Permission denied", str(path))
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", guarded)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path and access(path, mode))
    write_repository(Bundle.open(bundle), out, backend="python")
    assert [path.name for path in out.iterdir()] == ["tiny"]
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]


def test_a_volume_is_prepared_in_itself(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "repository"
    stat, rename = Path.stat, Path.rename

    def volume(path: Path, **options: Any) -> os.stat_result:
        found = stat(path, **options)
        return os.stat_result((*found[:2], found.st_dev + (out in (path, *path.parents)), *found[3:10]))

    def within(path: Path, target: Path) -> Path:
        if (out in path.parents) != (out in target.parents):
            raise OSError(18, "Invalid cross-device link")
        return rename(path, target)

    monkeypatch.setattr(Path, "stat", volume)
    monkeypatch.setattr(Path, "rename", within)
    write_repository(Bundle.open(bundle), out, backend="python")
    assert [path.name for path in out.iterdir()] == ["tiny"]


def test_versions_are_kept_and_replaced(bundle: Path, tmp_path: Path) -> None:
    other = make_bundle(tmp_path / "other", GRAPH.replace("half = {127.5}", "half = {127}"))
    out = tmp_path / "repository"
    write_repository(Bundle.open(bundle), out, backend="python", version=1)
    first = tree(out / "tiny" / "1")
    folder = write_repository(Bundle.open(other), out, backend="python", version=2)
    assert tree(folder / "1") == first
    assert set(config(folder).parameters) == {"manifest.1", "manifest.2"}
    write_repository(Bundle.open(other), out, backend="python", version=1)
    assert tree(folder / "1") == tree(folder / "2") != first
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "config.pbtxt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "repository"]


def test_other_models_stay(bundle: Path, tmp_path: Path) -> None:
    write_repository(Bundle.open(bundle), tmp_path, backend="python")
    before = tree(tmp_path / "tiny")
    write_repository(Bundle.open(DEFAULT_BUNDLE), tmp_path, backend="python")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mtcp-lite", "tiny"]
    assert tree(tmp_path / "tiny") == before


def refused(out: Path, message: str, bundle: Path, **options: Any) -> None:
    before = tree(out)
    with pytest.raises((ExportError, BundleError), match=message):
        write_repository(Bundle.open(bundle), out, **{"backend": "python", **options})
    assert tree(out) == before


def test_what_does_not_fit_is_refused_and_changes_nothing(bundle: Path, plan: Path, tmp_path: Path) -> None:
    out = tmp_path / "repository"
    write_repository(Bundle.open(bundle), out, backend="python")
    (out / "notes").mkdir()
    smaller = make_bundle(
        tmp_path / "smaller",
        GRAPH.replace(" saliency,\n", " other,\n").replace("saliency = Div", "other = Div"),
        tuple(
            task.model_copy(update={"output": "other"}) if task.name == "saliency" else task for task in TASKS
        ),
    )
    refused(out, "served by the python backend, not by onnxruntime", bundle, backend="onnxruntime")
    refused(out, "all versions .* share one config.*version 7.*version 8", smaller, version=8)
    refused(out, "version is 0", bundle, version=0)
    refused(out, f"version is {2**63}, Triton's are from 1 to {2**63 - 1}", bundle, version=2**63)
    refused(out, "plans are for the tensorrt backend", bundle, plans={"8.9": plan})
    gpu = tmp_path / "gpu"
    gpu.mkdir()
    refused(gpu, "needs at least one plan", bundle, backend="tensorrt")
    refused(gpu, "no plan at", bundle, backend="tensorrt", plans={"8.9": plan / "x"})
    refused(gpu, "not a plan of TensorRT", bundle, backend="tensorrt", plans={"8.9": bundle / "model.onnx"})
    refused(gpu, "not a compute capability", bundle, backend="tensorrt", plans={"sm89": plan})
    cpu = Serving(device="cpu")
    refused(gpu, "TensorRT runs on GPUs", bundle, backend="tensorrt", plans={"8.9": plan}, serving=cpu)
    refused(out, "no bundle", tmp_path / "nothing")
    named = shutil.copytree(bundle, tmp_path / "named")
    Manifest.load(bundle).model_copy(update={"version": "2024-beta"}).save(named)
    refused(out, "Triton's are whole numbers: give --version", named)
    (named / "model.onnx").write_bytes(b"damaged")
    refused(out, "SHA-256", named, version=1)
    Manifest.load(bundle).model_copy(update={"name": "notes"}).save(tmp_path / "named")
    shutil.copy(bundle / "model.onnx", named)
    refused(out, "notes exists and is not a model", named)
    for content in (b"garbage {", b"\xff\xfe"):
        (gpu / "tiny").mkdir(exist_ok=True)
        (gpu / "tiny" / "config.pbtxt").write_bytes(content)
        refused(gpu, r"gpu/tiny/config\.pbtxt cannot be read", bundle)
    (out / "tiny" / "7" / "manifest.json").unlink()
    refused(out, "cannot be kept", bundle, version=8)


def test_an_interrupt_leaves_the_repository_as_it_was(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "repository"
    write_repository(Bundle.open(bundle), out, backend="python")
    before = tree(out)
    other = make_bundle(tmp_path / "other", GRAPH.replace("half = {127.5}", "half = {127}"))
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if (self.parent.name, self.name) == ("model", "config.pbtxt"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_repository(Bundle.open(other), out, backend="python")
    assert tree(out) == before


@pytest.mark.parametrize("existing", [False, True])
def test_a_full_disk_leaves_the_repository_as_it_was(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    out = tmp_path / "repository"
    out.mkdir()
    if existing:
        write_repository(Bundle.open(bundle), out, backend="python")
    before = tree(out)
    other = make_bundle(tmp_path / "other", GRAPH.replace("half = {127.5}", "half = {127}"))
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name == "model" or (self.parent.name, self.name) == ("model", "config.pbtxt"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(ExportError, match="No space left"):
        write_repository(Bundle.open(other), out, backend="python")
    assert tree(out) == before
    monkeypatch.setattr(
        shutil, "copyfile", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(ExportError, match="No space left"):
        write_repository(Bundle.open(other), out, backend="python")
    assert tree(out) == before
    with pytest.raises(ExportError, match="No space left"):
        write_repository(Bundle.open(other), tmp_path / "new", backend="python")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "repository"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"instances": 0}, "instances is 0"),
        ({"max_batch": 0}, "max_batch is 0"),
        ({"queue_size": 0}, "queue_size is 0"),
        ({"queue_timeout_ms": 0}, "queue_timeout_ms is 0"),
        ({"threads": -1}, "threads is -1"),
        ({"max_batch": 2**31}, "max_batch is 2147483648, Triton takes no more than 2147483647"),
        ({"queue_timeout_ms": 10**30}, "queue_timeout_ms is 10{30}, "),
    ],
)
def test_settings_that_triton_cannot_use(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        Serving(**options)


def test_the_command(bundle: Path, plan: Path, tmp_path: Path) -> None:
    out = tmp_path / "repository"
    result = run(
        bundle, "-o", out, "--backend", "tensorrt", "--plan", f"8.9={plan}", "--version", 3, "--max-batch", 2
    )
    assert result.exit_code == 0, result.output
    assert result.output == f"{out}/tiny: tensorrt, versions 3\n"
    assert config(out / "tiny").max_batch_size == 2
    for arguments, message in (
        (["--backend", "python"], "served by the tensorrt backend"),
        (["--backend", "tensorrt", "--plan", "model.plan"], "must look like 8.9=model.plan"),
        (["--backend", "tensorrt", "--plan", f"8.9={plan}", "--queue-size", "0"], "queue_size is 0"),
    ):
        result = run(bundle, "-o", out, *arguments)
        assert result.exit_code == 2
        assert message in result.stderr


@needs_triton
def test_a_python_that_is_no_library_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Debian's python3 without libpython3: the backend's process does not start, and Triton waits for it."""
    monkeypatch.setattr(local, "_LIBRARIES", tmp_path)
    assert "apt install libpython3" in str(local.missing())


def test_a_reserved_port_is_for_the_server_that_is_told_it() -> None:
    with local.reserve() as reserved:
        address = reserved.getsockname()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        with pytest.raises(OSError, match="Address already in use"), socket.socket() as other:
            other.bind(address)
        with socket.create_server(address), socket.create_connection(address):
            pass


def test_a_local_triton_says_what_it_lacks(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)  # this process ends as it did
    with pytest.raises(typer.Exit) as ended:
        local.main(tmp_path)
    assert ended.value.exit_code == 2
    assert f"there is no model in {tmp_path}; python -m export.triton writes one" in capsys.readouterr().err
    run(bundle, "-o", tmp_path / "repository", "--backend", "python")
    with pytest.raises(typer.Exit) as ended:
        local.main(tmp_path / "repository", grpc_port=8000)
    assert ended.value.exit_code == 2
    assert "gRPC and HTTP cannot share port 8000" in capsys.readouterr().err
    with local.reserve() as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(typer.Exit) as ended:
            local.main(tmp_path / "repository", grpc_port=port)
    assert ended.value.exit_code == 3
    said = capsys.readouterr().err
    assert f"port {port} cannot be listened on" in said
    assert "give another --grpc-port" in said
