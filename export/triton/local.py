"""``python -m export.triton.local REPOSITORY``: a Triton on this machine, without a container.

The wheel ``nvidia-pytriton`` (x86-64 Linux) carries a whole Triton server with its Python backend. ``make
test`` installs it into the environment `HOME`, with what ``local-requirements.txt`` says the model needs.
"""

import os
import platform
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import typer
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from export.errors import ExportError, MachineError, TritonError, told

HOME = Path(sys.prefix) / "triton"
"""The Python environment of the server and of the models in its Python backend."""
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_SERVER = HOME / "lib" / f"python{_PYTHON}" / "site-packages" / "pytriton" / "tritonserver"
_STUB = "triton_python_backend_stub"
_LIBRARIES = Path(str(sysconfig.get_config_var("LIBDIR")))
_LIBRARY = f"libpython{_PYTHON}.so.1.0"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux has it
START_S = 180.0
"""Seconds within which Triton must be ready."""
_POLL_S = 0.1
_LOOPBACK = "127.0.0.1"


def missing() -> str | None:
    """Why Triton cannot be started here; None if it can."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return f"the Triton server in nvidia-pytriton is for x86-64 Linux, not {platform.platform()}"
    if not _SERVER.is_dir():
        return f"there is no Triton server in {HOME}; make test installs it"
    if not _stub().is_file():
        there = ", ".join(sorted(path.name for path in _stub().parent.parent.iterdir()))
        return f"nvidia-pytriton has its Python backend for Python {there}, not {_PYTHON}"
    if not (_LIBRARIES / _LIBRARY).is_file():
        return f"Triton needs {_LIBRARY} in {_LIBRARIES} (Debian: apt install libpython{_PYTHON})"
    return None


def _stub() -> Path:
    return _SERVER / "python_backend_stubs" / _PYTHON / _STUB


class LocalTriton:
    """A Triton server process on loopback ports; its models are loaded when it is made.

    Models can be loaded and unloaded later (explicit model control). Use it in a ``with`` statement.
    """

    def __init__(
        self,
        repository: Path,
        *,
        grpc_port: int = 0,
        http_port: int = 0,
    ) -> None:
        """Start Triton on ``repository`` and wait until all models are loaded.

        A port of 0 takes a free one.

        Raises:
            MachineError: Triton cannot run here.
            TritonError: it ended, or was not ready after `START_S`; the end of its log is in the message.
        """
        reason = missing()
        if reason:
            raise MachineError(reason)
        self.repository = repository
        with reserve() as grpc, reserve() as http:
            self.grpc_port = grpc_port or grpc.getsockname()[1]
            self.http_port = http_port or http.getsockname()[1]
            self._start()

    def _start(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="mtcp-triton-")
        self._shared = f"mtcp-triton-{os.getpid()}-{self.grpc_port}-"
        self._log = Path(self._scratch.name) / "log"
        self._killed = False
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603 - the wheel's own server
                self._command(),
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise

    @property
    def grpc(self) -> str:
        """Host and port for gRPC clients."""
        return f"{_LOOPBACK}:{self.grpc_port}"

    def log(self) -> str:
        """What Triton and the model have printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """Let requests in flight end, then end the process."""
        try:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):  # then it is killed
                    self.process.wait(timeout=10)
        finally:
            self.kill()

    def kill(self) -> None:
        """End the process and its model processes at once, and remove what they leave behind.

        Once only: later the number of the process may be somebody else's.
        """
        if self._killed:
            return
        self._killed = True
        with suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for path in _SHARED_MEMORY.glob(f"{self._shared}*"):
            path.unlink(missing_ok=True)
        self._scratch.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _command(self) -> list[str]:
        backends = Path(self._scratch.name) / "backends"
        python = backends / "python"
        python.mkdir(parents=True)
        for path in (*(_SERVER / "backends" / "python").iterdir(), _stub()):
            if path.is_file():
                (python / path.name).symlink_to(path)
        return [
            str(_SERVER / "bin" / "tritonserver"),
            f"--model-repository={self.repository}",
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={self._shared}",
            "--model-control-mode=explicit",
            "--load-model=*",
            f"--grpc-address={_LOOPBACK}",
            f"--grpc-port={self.grpc_port}",
            f"--http-address={_LOOPBACK}",
            f"--http-port={self.http_port}",
            "--disable-auto-complete-config",
            "--allow-metrics=false",
            "--exit-timeout-secs=5",
        ]

    def _wait(self) -> None:
        end = time.monotonic() + START_S
        with InferenceServerClient(self.grpc) as client:
            while True:
                if self.process.poll() is not None:
                    raise TritonError(f"Triton ended with status {self.process.returncode}:\n{self._tail()}")
                try:
                    if client.is_server_ready(client_timeout=1):
                        return
                except InferenceServerException:
                    pass  # not listening yet
                if time.monotonic() > end:
                    raise TritonError(f"Triton was not ready after {START_S:g} s:\n{self._tail()}")
                time.sleep(_POLL_S)

    def _tail(self) -> str:
        lines = [
            line for line in self.log().splitlines() if line and line[0] not in "+|"
        ]  # without its tables
        return "\n".join(lines[-20:])


def _environment() -> dict[str, str]:
    """The Python backend takes its packages from the first Python on PATH."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
    return kept | {
        "PATH": os.pathsep.join([str(HOME / "bin"), os.environ.get("PATH", os.defpath)]),
        "LD_LIBRARY_PATH": str(_LIBRARIES),
    }


def reserve(port: int = 0) -> socket.socket:
    """A socket on a loopback port; 0: a free one.

    While it is open, nobody who asks for a free port is given this one; a server told to listen on it can.

    Raises:
        OSError: the port is taken, or not allowed.
        OverflowError: there is no such port.
    """
    reserved = socket.socket()
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind((_LOOPBACK, port))
    except (OSError, OverflowError):
        reserved.close()
        raise
    return reserved


def _check_free(option: str, port: int) -> None:
    try:
        reserve(port).close()
    except (OSError, OverflowError) as error:
        raise MachineError(f"port {port} cannot be listened on ({error}); give another {option}") from error


def main(
    repository: Annotated[
        Path, typer.Argument(help="Model repository, for the python backend.", exists=True, file_okay=False)
    ],
    grpc_port: Annotated[int, typer.Option(help="Port for gRPC.")] = 8001,
    http_port: Annotated[int, typer.Option(help="Port for HTTP.")] = 8000,
) -> None:
    """Serve a repository on loopback until interrupted. For trying out: production runs Triton's containers.

    Exit status 1: Triton ended, or could not load a model; 2: the repository has none, or both ports are
    one; 3: it cannot run here, or a port is taken.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else the server would be left behind
    with told():
        if not any(repository.glob("*/config.pbtxt")):
            raise ExportError(f"there is no model in {repository}; python -m export.triton writes one")
        if grpc_port == http_port:
            raise ExportError(f"gRPC and HTTP cannot share port {grpc_port}; give another --http-port")
        for option, port in (("--grpc-port", grpc_port), ("--http-port", http_port)):
            _check_free(option, port)
    with told(), LocalTriton(repository, grpc_port=grpc_port, http_port=http_port) as triton:
        typer.echo(f"gRPC on {triton.grpc}, HTTP on {_LOOPBACK}:{triton.http_port}; Ctrl-C ends it")
        try:
            triton.process.wait()
        except KeyboardInterrupt:
            return
        raise TritonError(f"Triton ended:\n{triton.log()}")


if __name__ == "__main__":
    typer.run(main)
