"""``model.py`` of Triton's Python backend: the bundle's graph in ONNX Runtime.

For a Triton without the ONNX Runtime backend. It reads ``model.onnx`` and ``manifest.json`` beside itself and
needs numpy and onnxruntime (or onnxruntime-gpu) in the Python that Triton runs; nothing of this project.
A Triton that was built for numpy 1 reads and writes arrays of numpy 2 wrongly, without an error; then
the model is not loaded.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when ONNX Runtime is imported
import onnxruntime as ort

_IMAGE = "image"
_ERRORS_ONLY = 3  # severity of ONNX Runtime's log


class TritonPythonModel:
    """One instance of the model; the requests that Triton hands over together run as one batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the graph on the device of this instance.

        Raises:
            TritonModelException: numpy is not the one that this Triton was built for, a file is not the
                manifest's, or the device cannot be used.
        """
        _check_numpy()
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        model = folder / "model.onnx"
        _check_files(folder, manifest)
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(config["parameters"].get("threads", {}).get("string_value", 0))
        options.log_severity_level = _ERRORS_ONLY
        providers: list[Any] = ["CPUExecutionProvider"]
        if args["model_instance_kind"] == "GPU":
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": args["model_instance_device_id"]}))
        self._session = ort.InferenceSession(model, options, providers=providers)
        if len(self._session.get_providers()) < len(providers):
            raise triton.TritonModelException(
                "this instance is for a GPU, but ONNX Runtime cannot use one: install onnxruntime-gpu, "
                "or write the repository with --device cpu"
            )
        confidences = [task["confidence"] for task in manifest["tasks"] if "confidence" in task]
        self._outputs = [entry["output"] for entry in (*manifest["tasks"], *confidences)]

    def execute(self, requests: list[Any]) -> list[Any]:
        """The maps that each request asks for, in one run; labels uint8, other maps as in the manifest."""
        images = [triton.get_input_tensor_by_name(request, _IMAGE).as_numpy() for request in requests]
        asked = [set(request.requested_output_names()) for request in requests]
        names = [name for name in self._outputs if any(name in some for some in asked)]
        try:
            maps = self._session.run(names, {_IMAGE: np.concatenate(images)})
        except Exception as failure:  # onnxruntime's exceptions share no base of their own
            return [triton.InferenceResponse(error=triton.TritonError(str(failure))) for _ in requests]
        responses, start = [], 0
        for some, image in zip(asked, images, strict=True):
            end = start + len(image)
            answer = [
                triton.Tensor(name, np.ascontiguousarray(values[start:end]))
                for name, values in zip(names, maps, strict=True)
                if name in some
            ]
            responses.append(triton.InferenceResponse(answer))
            start = end
        return responses


def _check_files(folder: Path, manifest: dict[str, Any]) -> None:
    """Compare what is there of the bundle, the graph and weights beside it, with the manifest's hashes."""
    for name, entry in manifest["files"].items():
        path, expected = folder / name, entry["sha256"]
        if path.is_file() and (found := hashlib.sha256(path.read_bytes()).hexdigest()) != expected:
            raise triton.TritonModelException(
                f"the manifest says {name} has SHA-256 {expected}, it has {found}"
            )


def _check_numpy() -> None:
    """Let Triton make an array of memory that it holds, as it does for each request."""
    expected = np.arange(1, 7, dtype=np.float32)
    held = triton.Tensor.from_dlpack("held", triton.Tensor("given", expected))
    if not np.array_equal(held.as_numpy(), expected):
        raise triton.TritonModelException(
            f"this Triton's Python backend cannot exchange arrays with numpy {np.__version__}: "
            "pip install 'numpy<2' into the Python that it runs"
        )
