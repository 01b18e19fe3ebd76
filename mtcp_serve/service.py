"""What a running server holds: the loaded models and the door to them."""

from collections.abc import Sequence
from typing import Self

from mtcp_serve.admission import Admission
from mtcp_serve.engine import Engine
from mtcp_serve.errors import UnknownModelError
from mtcp_serve.images import ImageLimits
from mtcp_serve.pipeline import Pipeline
from mtcp_serve.settings import Settings


class Service:
    """Pipelines by model name (the first is the default), their admission, and the settings."""

    def __init__(self, settings: Settings, engines: Sequence[Engine]) -> None:
        limits = ImageLimits.of(settings)
        self.settings = settings
        self.pipelines = {engine.manifest.name: Pipeline(engine, limits) for engine in engines}
        self.admission = Admission(settings.concurrency, settings.queue, settings.deadline_s)

    async def __aenter__(self) -> Self:
        """Warm every model up."""
        for pipeline in self.pipelines.values():
            await pipeline.warm_up()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let the work in flight end."""
        await self.admission.drain()
        for pipeline in self.pipelines.values():
            pipeline.close()

    def pipeline(self, model: str | None) -> Pipeline:
        """The pipeline of ``model``, of the default one for ``None``.

        Raises:
            UnknownModelError: no loaded model has this name; the message lists those there are.
        """
        if model is None:
            return next(iter(self.pipelines.values()))
        if model not in self.pipelines:
            raise UnknownModelError(f"no model {model!r} is loaded; there is {', '.join(self.pipelines)}")
        return self.pipelines[model]
