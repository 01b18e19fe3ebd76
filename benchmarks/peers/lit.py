"""LitServe (extra ``bench``): one worker process, as many requests at a time as its defaults say."""

import os
from typing import Any

import litserve
from fastapi import Request, Response

from benchmarks.peers.plain import MEDIA_TYPES
from benchmarks.peers.work import Work


class Maps(litserve.LitAPI):  # type: ignore[misc]  # installed only where it is measured
    """The hooks that LitServe calls one after the other."""

    def setup(self, device: object) -> None:
        """Open the graph in the worker."""
        self.work = Work.of_environment()

    def decode_request(self, request: Request, **_: object) -> Any:
        """Image, its size, the format, of a form: what is annotated so comes as one."""
        form: Any = request
        return (*self.work.decode(form["image"].file.read()), form["format"])

    def predict(self, x: Any, **_: object) -> Any:
        """The maps."""
        image, size, form = x
        return self.work.infer(image), size, form

    def encode_response(self, output: Any, **_: object) -> Any:
        """The answer."""
        maps, size, form = output
        return Response(self.work.encode(maps, size, form), media_type=MEDIA_TYPES[form])


if __name__ == "__main__":
    server = litserve.LitServer(Maps(api_path="/predict"), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(os.environ["PEER_PORT"]), generate_client_file=False)
