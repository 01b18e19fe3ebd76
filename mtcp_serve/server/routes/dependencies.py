"""What several paths share: the running service, the query parameters, and the way from image to response."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Self, TypeVar

from fastapi import Depends, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import HTTPConnection

from mtcp_serve.errors import InvalidParameterError, NotReadyError
from mtcp_serve.inference.camera import FOCAL_PX, CameraRequest
from mtcp_serve.inference.distances import Distances, check_measurable
from mtcp_serve.inference.pipeline import Size, check_refine, predict
from mtcp_serve.inference.registry import Choice, Models, task_names, with_confidence
from mtcp_serve.inference.timings import Timings
from mtcp_serve.kinds import TaskSpec
from mtcp_serve.kinds.colormaps import DEFAULT, ColormapName, colormap_names
from mtcp_serve.kinds.depth import FOV_X
from mtcp_serve.outputs.formats import BATCH_FORMATS, FORMATS, Options, Writer
from mtcp_serve.outputs.formats.base import Background, MinConfidence, Step
from mtcp_serve.outputs.picture import check_style
from mtcp_serve.server.request_body import FIELD
from mtcp_serve.server.responses import PacedResponse
from mtcp_serve.server.service import Service, Turn
from mtcp_serve.utils.concurrency import in_thread
from mtcp_serve.utils.faults import faults_of

GIVE_ONCE = "give each parameter once; tasks=semseg,depth names two tasks"
B = TypeVar("B")
T = TypeVar("T")
Q = TypeVar("Q", bound=BaseModel)
Plan = tuple[tuple[Choice, ...], Writer]
"""Who answers which task, and what writes the response."""


async def get_service(connection: HTTPConnection) -> Service:
    """The running service.

    Raises:
        NotReadyError: the model is not loaded yet, or the server is shutting down.
    """
    service: Service | None = connection.app.state.service
    if service is None:
        raise NotReadyError("the server is starting or shutting down")
    return service


Running = Annotated[Service, Depends(get_service)]


async def lease_models(service: Running) -> AsyncIterator[Models]:
    """The models as they are now; a reload does not close them before this request has ended."""
    with service.models.lease() as models:
        yield models


Leased = Annotated[Models, Depends(lease_models)]


async def handle(
    request: Request,
    service: Service,
    read: Callable[[], Awaitable[B]],
    work: Callable[[B, Turn, Models], Awaitable[T]],
) -> tuple[T, Turn]:
    """`Service.handle` for an HTTP request: one that disconnects is cancelled, the log says its stages."""

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    result, turn = await service.handle(read, work, disconnected)
    request.scope["state"]["stages"] = [timings.ms for timings in turn.images]
    return result, turn


def respond(service: Service, content: bytes, turn: Turn, writer: Writer) -> PacedResponse:
    """The response with what ``writer`` has written, and what the time of its images was spent on."""
    total = Timings()
    total.spans = [span for timings in turn.images for span in timings.spans]
    headers = {"Server-Timing": total.header(), "Vary": "Accept", "Content-Type": writer.content_type}
    return PacedResponse(content, headers, service.sending())


async def given_once(connection: HTTPConnection) -> None:
    """Refuse a query parameter that is there twice: all but the last would be ignored.

    Raises:
        InvalidParameterError: there is one.
    """
    for name, times in Counter(name for name, _ in connection.query_params.multi_items()).items():
        if times > 1:
            raise InvalidParameterError(f"{name} is given {times} times", GIVE_ONCE)


def _known(formats: Mapping[str, type[Writer]]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in formats:
            raise ValueError(f"{name!r} is none of {', '.join(formats)}")
        return name

    return AfterValidator(check)


def _task_list(text: str) -> str:
    task_names(text)
    return text


class _Query(BaseModel):
    """Query parameters; one that is not here is refused, not ignored."""

    model_config = ConfigDict(extra="forbid")

    tasks: Annotated[str, AfterValidator(_task_list)] | None = Field(
        default=None, description="Tasks to answer, separated by commas; all there are by default.",
        examples=["semseg,depth"],
    )  # fmt: skip
    size: Size = Field(
        default="input",
        description="Maps as large as the image, or as the model gives them.",
        examples=["model"],
    )
    model: str | None = Field(
        default=None,
        description="Only the tasks of this model. By default each task is answered by the first model that "
        "has it (`tasks` of GET /models).",
    )
    visualize: bool = Field(default=False, description="Add a visualization of every map.", examples=[True])
    colormap: ColormapName | None = Field(
        default=None,
        description="Colors of the visualization of depth, near at the upper end; it is added where this is "
        f"given. One of {', '.join(colormap_names())} ({DEFAULT} by default), or with _r after it reversed.",
        examples=["turbo"],
    )
    legend: bool = Field(
        default=False,
        description="Add below the visualization of depth a bar of its colors and the depths that they stand "
        "for; the visualization is added where this is given, and higher than the map.",
        examples=[True],
    )

    refine: bool | None = Field(
        default=None,
        description="Bring classes, depth and probabilities to the size of the image along its edges: "
        "sharper where the image is larger than the model's maps, and slower. By default cut-outs are, other "
        "formats are not.",
        examples=[True],
    )
    confidence: bool = Field(
        default=False,
        description="Add to every map how sure the model is of it: at each pixel the calibrated probability "
        "that the map is right there, by the map's `criterion`. Maps that the model does not say it of go "
        "without (`without_confidence`); where it says it of none of the tasks the request is refused.",
        examples=[True],
    )

    fov_x: float | None = Field(
        default=None,
        ge=FOV_X[0],
        le=FOV_X[1],
        description="The camera's field of view from the left to the right edge, degrees. Give one of fov_x, "
        "focal_px and intrinsics, or none: then the image's EXIF says it, or else the model's manifest.",
        examples=[60],
    )
    focal_px: float | None = Field(
        default=None,
        ge=FOCAL_PX[0],
        le=FOCAL_PX[1],
        description="The camera's focal length in pixels of the upright image.",
        examples=[900],
    )
    intrinsics: str | None = Field(
        default=None,
        description="The camera as fx,fy,cx,cy in pixels of the upright image, pixel centres at integers.",
        examples=["900,900,599.5,449.5"],
    )

    @model_validator(mode="after")
    def _one_camera(self) -> Self:
        self.camera()
        return self

    def camera(self) -> CameraRequest:
        """The camera that the request names."""
        return CameraRequest.parse(self.fov_x, self.focal_px, self.intrinsics)

    def plan(self, form: type[Writer], choices: Sequence[Choice]) -> tuple[tuple[Choice, ...], Options]:
        """Those of ``choices`` that ``form`` shows, with the confidences that it needs; and its options.

        Raises:
            InvalidParameterError: the format cannot be made of them or has no such option, or the models do
                not say how sure they are of what it shows.
        """
        tasks = form.used([choice.task for choice in choices])
        options = self.options(form, tasks)
        shown = [choice for choice in choices if choice.task in tasks]
        if not options.needs_confidence:
            return tuple(shown), options
        return with_confidence(shown, form.sure(tasks)), options

    def options(self, form: type[Writer], tasks: Sequence[TaskSpec]) -> Options:
        """What the request for ``tasks`` says of its format.

        Raises:
            InvalidParameterError: it names an option that ``form`` does not have, or that none of ``tasks``
                would heed, or options that contradict each other.
        """
        known = {field.name for field in fields(Options)} & type(self).model_fields.keys()
        for name in sorted(known & self.model_fields_set - form.options):
            owners = ", ".join(each.name for each in FORMATS.values() if name in each.options)
            raise InvalidParameterError(
                f"format {form.name} has no {name}", f"{name} is of format {owners}; leave it out"
            )
        if "visualize" in self.model_fields_set and not self.visualize and (self.colormap or self.legend):
            raise InvalidParameterError(
                "visualize is false, but a colormap or legend is given", "leave visualize out"
            )
        check_style(self.colormap, self.legend, tasks)
        if self.refine:
            check_refine(self.size)
        return Options(**{name: getattr(self, name) for name in known})

    def with_fields(self, form: Sequence[tuple[str, str]]) -> Self:
        """These parameters, and those that came as fields of the form.

        Raises:
            InvalidParameterError: a field is not a parameter, is there twice, has a value that is not
                allowed, or says something else than the query.
        """
        given: dict[str, str] = {}
        for name, value in form:
            if name not in type(self).model_fields:
                known = ", ".join(type(self).model_fields)
                raise InvalidParameterError(f"the form has a field {name!r}; it may have {FIELD}, {known}")
            if name in given:
                raise InvalidParameterError(f"{name} is given 2 times", GIVE_ONCE)
            given[name] = value
        if not given:
            return self
        try:
            parsed = type(self).model_validate(given)
            for name in given.keys() & self.model_fields_set:
                if getattr(self, name) != getattr(parsed, name):
                    raise InvalidParameterError(
                        f"{name} is {given[name]!r} in the form, and something else in the query",
                        "give it in one of the two places",
                    )
            return type(self).model_validate({**given, **self.model_dump(exclude_unset=True)})
        except ValidationError as error:
            raise InvalidParameterError(faults_of(error.errors())) from error

    def names(self) -> list[str] | None:
        """The expected tasks; ``None`` for all."""
        return None if self.tasks is None else task_names(self.tasks)


class PredictQuery(_Query):
    """Query parameters of ``POST /predict``."""

    step: Step | None = Field(
        default=None,
        description="Of format ply: a point for every so many pixels, across and down; by default as many "
        "points as stay below a million.",
        examples=[2],
    )
    min_confidence: MinConfidence | None = Field(
        default=None,
        description="Of formats ply, glb, usdz: leave out what the model is less sure of than this, 0 to 1.",
        examples=[0.5],
    )
    edges: bool = Field(
        default=False,
        description="Of format ply: at jumps of the depth, leave the points where the network has them, "
        "between two surfaces, instead of bringing them to one.",
        examples=[True],
    )
    background: Background = Field(
        default="transparent",
        description="Of format cutout: transparent, or the color (#rrggbb) to lay the subject over.",
        examples=["#ffffff"],
    )

    format: Annotated[str, _known(FORMATS)] | None = Field(
        default=None,
        description="Response format; goes before the Accept header. JSON by default.",
        json_schema_extra={"enum": list(FORMATS)},
        examples=["npz"],
    )
    distances: str | None = Field(
        default=None,
        description="Distances that are known, as x,y,metres,x,y,metres in pixels of the upright image and "
        "along the optical axis: depth in metres is corrected by them.",
        examples=["250,250,1.2,460,50,3.5"],
    )

    @model_validator(mode="after")
    def _triples(self) -> Self:
        self.known()
        return self

    def known(self) -> Distances | None:
        """The distances that the request names.

        Raises:
            InvalidParameterError: they are not written as they should be, or none that a map can have.
        """
        return None if self.distances is None else Distances.parse(self.distances)

    def options(self, form: type[Writer], tasks: Sequence[TaskSpec]) -> Options:
        """See `_Query.options`; distances need a depth in metres among ``tasks``."""
        if self.distances is not None:
            check_measurable(tasks)
        return super().options(form, tasks)


class BatchQuery(_Query):
    """Query parameters of ``POST /predict/batch``."""

    format: Annotated[str, _known(BATCH_FORMATS)] | None = Field(
        default=None,
        description="Response format; goes before the Accept header. JSON by default.",
        json_schema_extra={"enum": list(BATCH_FORMATS)},
        examples=["zip"],
    )


def read_query(parameters: type[Q]) -> Callable[[HTTPConnection], Awaitable[Q]]:
    """A dependency that gives the query of a request as ``parameters``.

    FastAPI can do that, but finds out anew for every request what each field is, which takes half a
    millisecond of it. `mtcp_serve.server.routes.documentation` puts the parameters into the API docs.

    Raises:
        InvalidParameterError: a parameter is unknown, or has a value that is not allowed.
    """

    async def read(connection: HTTPConnection) -> Q:
        try:
            return parameters.model_validate(dict(connection.query_params))
        except ValidationError as error:
            raise InvalidParameterError(faults_of(error.errors())) from error

    return read


async def write_prediction(
    service: Service,
    data: bytes,
    choices: Sequence[Choice],
    query: PredictQuery,
    writer: Writer,
    timings: Timings,
) -> bytes:
    """What ``writer`` makes of the maps of ``choices`` for the image file ``data``.

    Raises:
        RequestError: see `mtcp_serve.inference.pipeline.predict`.
    """
    prediction = await predict(
        data,
        choices,
        query.size,
        service.limits,
        timings,
        camera=query.camera(),
        keep_image=writer.needs_image,
        refine=bool(query.refine),
        distances=query.known(),
    )
    return await in_thread(lambda: writer.finish(writer.add(prediction)))
