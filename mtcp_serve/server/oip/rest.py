"""Bodies of the protocol's REST form: JSON, with the binary tensor extension after it."""

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mtcp_serve.bundle.manifest import Manifest, TaskSpec
from mtcp_serve.errors import InvalidBodyError
from mtcp_serve.inference.camera import Camera
from mtcp_serve.kinds.base import Map
from mtcp_serve.server.oip.infer import HINT, Tensor, check_parameters, say_camera
from mtcp_serve.server.oip.model import datatype

HEADER_LENGTH = "Inference-Header-Content-Length"
"""Header with the length (bytes) of the JSON, where binary tensors come after it."""


def _or(default: Any) -> Callable[[Any], Any]:
    """What optional fields are where they are ``null``: some clients write all that they could have said."""
    return lambda value: default if value is None else value


Parameters = Annotated[dict[str, Any], BeforeValidator(_or({}))]
_OVERHEAD = 4096  # commas of a request beside those between elements
_AT_A_TIME = 2**16  # numbers that are Python's while their text is made


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class InputTensor(_Message):
    """An input: its elements in ``data``, flat or nested, or ``binary_data_size`` bytes after the JSON."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: Parameters = Field(default_factory=dict)


class OutputRequest(_Message):
    """A requested output; parameter ``binary_data`` says in which form."""

    name: str
    parameters: Parameters = Field(default_factory=dict)


class InferRequest(_Message):
    """The JSON of a request."""

    id: Annotated[str, BeforeValidator(_or(""))] = ""
    inputs: list[InputTensor]
    outputs: Annotated[list[OutputRequest], BeforeValidator(_or([]))] = Field(default_factory=list)
    parameters: Parameters = Field(default_factory=dict)


def parse(body: bytes, header_length: str | None, most: int) -> tuple[InferRequest, list[Tensor]]:
    """The request in ``body``, whose JSON is as long as ``header_length`` says.

    Nothing is made of a text with more than ``most`` elements: each would take some 40 bytes.

    Raises:
        InvalidBodyError: it is not a request.
        UnsupportedError: it has a parameter that is not known and would change the response.
    """
    end = len(body) if header_length is None else _length(header_length, len(body))
    commas = body.count(b",", 0, end)
    if commas >= most + _OVERHEAD:
        raise InvalidBodyError(
            f"the JSON has {commas} commas; the largest input of the model has {most} elements", HINT
        )
    try:
        request = InferRequest.model_validate_json(body[:end])
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_context=False, include_input=False)
        )
        raise InvalidBodyError(f"the request is wrong: {faults}", HINT) from error
    check_parameters(
        request.parameters,
        *(each.parameters for each in request.inputs),
        *(each.parameters for each in request.outputs),
    )
    tensors = []
    for tensor in request.inputs:
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            tensors.append(_tensor(tensor, lambda data=tensor.data: _from_json(data)))
            continue
        if type(size) is not int or size < 0 or end + size > len(body):
            raise InvalidBodyError(
                f"binary_data_size of {tensor.name} is {size!r}, more than the body holds", HINT
            )
        raw = np.frombuffer(body, np.uint8, size, end)
        tensors.append(_tensor(tensor, lambda raw=raw: raw))
        end += size
    if end != len(body):
        raise InvalidBodyError(f"{len(body) - end} bytes of the body belong to no tensor", HINT)
    return request, tensors


def _length(text: str, most: int) -> int:
    """The header's value, ``most`` at most; far longer numbers are not even converted."""
    if not text.isdecimal() or len(text) > len(str(most)) or int(text) > most:
        raise InvalidBodyError(f"{HEADER_LENGTH} is {text!r}, the body has {most} bytes", HINT)
    return int(text)


def _tensor(tensor: InputTensor, read: Any) -> Tensor:
    return Tensor(tensor.name, tensor.datatype, tuple(tensor.shape), read)


def _from_json(data: list[Any] | None) -> NDArray[np.uint8]:
    try:
        values = np.asarray(data or [])
    except ValueError as error:
        raise InvalidBodyError(f"data is not an array of whole numbers: {error}", HINT) from error
    if values.size and values.dtype.kind not in "iu":  # fractions would be cut off, text be read
        raise InvalidBodyError("data is not an array of whole numbers", HINT)
    if values.size and not (values.min() >= 0 and values.max() <= 255):
        raise InvalidBodyError("data has values that are not 0 to 255", HINT)
    return values.ravel().astype(np.uint8)


def write(
    request: InferRequest, manifest: Manifest, tasks: Sequence[TaskSpec], maps: Sequence[Map], camera: Camera
) -> tuple[bytes, int | None]:
    """The body of the response, and the length of its JSON if binary tensors come after it."""
    everything = request.parameters.get("binary_data_output", False)
    wanted = {output.name: output.parameters.get("binary_data", everything) for output in request.outputs}
    about = {
        "model_name": manifest.name,
        "model_version": manifest.version,
        "parameters": say_camera(camera),
    } | ({"id": request.id} if request.id else {})
    body, blobs = bytearray(json.dumps(about)[:-1].encode() + b', "outputs": ['), []
    for index, (task, values) in enumerate(zip(tasks, maps, strict=True)):
        entry: dict[str, Any] = {
            "name": task.output, "datatype": datatype(task), "shape": list(values.shape),
        }  # fmt: skip
        body += b", " if index else b""
        if wanted.get(task.output, everything):
            blobs.append(np.ascontiguousarray(values).tobytes())
            body += json.dumps(entry | {"parameters": {"binary_data_size": len(blobs[-1])}}).encode()
        else:
            body += json.dumps(entry)[:-1].encode() + b', "data": ['
            _add_numbers(body, values)
            body += b"]}"
    body += b"]}"
    return b"".join([body, *blobs]), len(body) if blobs else None


def _add_numbers(body: bytearray, values: Map) -> None:
    """Their text, made of some at a time: as Python's numbers all would take twice the memory of the text."""
    flat = values.ravel()
    for start in range(0, flat.size, _AT_A_TIME):
        body += b"," if start else b""
        body += json.dumps(flat[start : start + _AT_A_TIME].tolist(), separators=(",", ":"))[1:-1].encode()
