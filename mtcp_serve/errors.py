"""Every error that this package raises on purpose.

Tree of classes, with the HTTP status and the ``code`` of the response::

    MtcpServeError
    ├── BundleError                      a bundle cannot be served; the server does not start
    │   ├── BundleNotFoundError
    │   ├── ManifestError
    │   ├── BundleMismatchError
    │   ├── EngineUnavailableError       what it needs to run is not on this machine
    │   └── BundleWriteError
    ├── SettingsError                    a file or port that the settings name cannot be used
    │   └── PortError                    nobody can listen there
    └── RequestError                     a request cannot be answered
        ├── InvalidImageError            400 invalid_image
        │   └── EmptyImageError          400 empty_image
        ├── InvalidRequestError          400 invalid_request
        ├── InvalidBodyError             400 invalid_body
        ├── UnauthorizedError            401 unauthorized, with WWW-Authenticate
        ├── ForbiddenOriginError         403 forbidden_origin
        ├── NotFoundError                404 not_found
        │   ├── UnknownModelError        404 unknown_model
        │   └── UnknownTaskError         404 unknown_task
        ├── MethodNotAllowedError        405 method_not_allowed
        ├── NotAcceptableError           406 not_acceptable
        ├── UploadTimeoutError           408 upload_timeout
        ├── PayloadTooLargeError         413 payload_too_large
        │   └── TooManyImagesError       413 too_many_images
        ├── ImageTooLargeError           413 image_too_large
        ├── UnsupportedMediaTypeError    415 unsupported_media_type
        ├── InvalidParameterError        422 invalid_parameter
        ├── OverloadedError              429 overloaded, with Retry-After
        ├── InternalError                500 internal_error
        ├── UnsupportedError             501 not_implemented
        ├── NotReadyError                503 not_ready, with Retry-After
        │   ├── DrainingError            503 draining, with Retry-After
        │   └── EngineLostError          503 engine_lost, with Retry-After
        │       └── VersionLostError     503 engine_lost, with Retry-After
        └── DeadlineError                504 deadline_exceeded

The body of an error response is ``{"error": {"code", "message", "hint"}}`` (`RequestError.body`).
"""

from typing import ClassVar


class MtcpServeError(Exception):
    """Base of all errors of this package."""


class BundleError(MtcpServeError):
    """A bundle cannot be served."""


class BundleNotFoundError(BundleError):
    """The folder does not exist or holds no manifest."""


class ManifestError(BundleError):
    """``manifest.json`` is missing, unreadable, of an unknown schema, or wrong."""


class BundleMismatchError(BundleError):
    """The manifest and the files or the graph beside it disagree."""


class EngineUnavailableError(BundleError):
    """A package, a device or a driver that an engine needs is not on this machine."""


class BundleWriteError(BundleError):
    """A file of a bundle cannot be written; the bundle is as it was before."""


class SettingsError(MtcpServeError):
    """A file or port that the settings name cannot be used; nothing starts."""


class PortError(SettingsError):
    """Nothing can listen at an address and port: it is taken, not allowed, or not of this machine."""


class RequestError(MtcpServeError):
    """A request cannot be answered: ``status`` (HTTP), ``code`` (for programs), ``hint`` (what to do).

    ``retry_after`` (whole seconds) is sent as the ``Retry-After`` header unless ``None``; ``close`` ends
    the connection, where the rest of the request is not worth reading; ``challenge`` is sent as
    ``WWW-Authenticate``.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    default_hint: ClassVar[str]
    retry_after: ClassVar[int | None] = None
    close: ClassVar[bool] = False
    challenge: ClassVar[str | None] = None

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint

    @property
    def line(self) -> str:
        """Message and hint in one line, for protocols whose errors are a text."""
        return f"{self.message} ({self.hint})"

    def body(self) -> dict[str, dict[str, str]]:
        """The JSON body of the response."""
        return {"error": {"code": self.code, "message": self.message, "hint": self.hint}}


class InvalidImageError(RequestError):
    """The bytes are not an image that can be decoded completely."""

    status = 400
    code = "invalid_image"
    default_hint = "send a complete JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF file"


class EmptyImageError(InvalidImageError):
    """The image has no bytes."""

    code = "empty_image"
    default_hint = "the body or the form field was empty; send the bytes of the image"


class InvalidRequestError(RequestError):
    """The bytes on the connection are not an HTTP/1.1 request."""

    status = 400
    code = "invalid_request"
    default_hint = "send HTTP/1.1 with a plain head"


class InvalidBodyError(RequestError):
    """The request body is malformed or carries no image."""

    status = 400
    code = "invalid_body"
    default_hint = (
        "send the image as multipart field 'image', or as the raw body with Content-Type: image/jpeg"
    )


class UnauthorizedError(RequestError):
    """The request has no API key of this server."""

    status = 401
    code = "unauthorized"
    close = True
    challenge = "Bearer"
    default_hint = "send a key of this server, as Authorization: Bearer KEY or X-API-Key: KEY"


class ForbiddenOriginError(RequestError):
    """A page of another origin opens a stream."""

    status = 403
    code = "forbidden_origin"
    default_hint = "list the origin in MTCP_CORS_ORIGIN on the server"


class NotFoundError(RequestError):
    """Nothing is served at this path."""

    status = 404
    code = "not_found"
    default_hint = "see /docs for the paths that exist"


class UnknownModelError(NotFoundError):
    """No loaded model has this name."""

    code = "unknown_model"
    default_hint = "GET /models lists the loaded models"


class UnknownTaskError(NotFoundError):
    """The model has no task of this name."""

    code = "unknown_task"
    default_hint = "GET /models lists the tasks of each model"


class MethodNotAllowedError(RequestError):
    """The path exists, but not for this method."""

    status = 405
    code = "method_not_allowed"
    default_hint = "see the Allow header and /docs"


class NotAcceptableError(RequestError):
    """No response format fits the Accept header."""

    status = 406
    code = "not_acceptable"
    default_hint = "accept one of the listed types, or name one with ?format="


class UploadTimeoutError(RequestError):
    """The body was not complete in time."""

    status = 408
    code = "upload_timeout"
    close = True
    default_hint = "send the body faster, or raise MTCP_UPLOAD_S on the server"


class PayloadTooLargeError(RequestError):
    """The body has more bytes than the server takes."""

    status = 413
    code = "payload_too_large"
    close = True
    default_hint = (
        "send less, or raise MTCP_MAX_BYTES (an image) or MTCP_MAX_BATCH_BYTES (a batch) on the server"
    )


class TooManyImagesError(PayloadTooLargeError):
    """The batch has more images than the server takes in one request."""

    code = "too_many_images"
    default_hint = "send several requests, or raise MTCP_MAX_BATCH_IMAGES on the server"


class ImageTooLargeError(RequestError):
    """The image header announces more pixels, or a longer side, than the server decodes."""

    status = 413
    code = "image_too_large"
    default_hint = "scale the image down, or raise MTCP_MAX_PIXELS or MTCP_MAX_SIDE on the server"


class UnsupportedMediaTypeError(RequestError):
    """The Content-Type is none that /predict reads, or the body is compressed."""

    status = 415
    code = "unsupported_media_type"
    default_hint = "send multipart field 'image' (curl -F image=@x.jpg), or set Content-Type: image/jpeg"


class InvalidParameterError(RequestError):
    """A query parameter has a value that is not allowed."""

    status = 422
    code = "invalid_parameter"
    default_hint = "see /docs for the parameters and their values"


class OverloadedError(RequestError):
    """As many requests are being read, worked on, waiting or answered as may be."""

    status = 429
    code = "overloaded"
    default_hint = "wait as long as Retry-After says, then send the request again"
    retry_after = 1


class InternalError(RequestError):
    """Something failed that should not; the log has the traceback under the request id."""

    status = 500
    code = "internal_error"
    default_hint = "report the X-Request-ID of this response to whoever runs the server"


class UnsupportedError(RequestError):
    """The protocol has this, the server does not."""

    status = 501
    code = "not_implemented"
    default_hint = "leave it out; GET /v2 lists the extensions that there are"


class NotReadyError(RequestError):
    """The server cannot take requests at the moment."""

    status = 503
    code = "not_ready"
    default_hint = "wait until GET /health/ready answers 200"
    retry_after = 1


class DrainingError(NotReadyError):
    """The server is shutting down: it finishes what it accepted and takes nothing new."""

    code = "draining"
    default_hint = "send the request again; another server, or this one after its restart, will answer"


class EngineLostError(NotReadyError):
    """Whatever runs the model cannot be reached."""

    code = "engine_lost"
    default_hint = "wait as long as Retry-After says, then send the request again"


class VersionLostError(EngineLostError):
    """Whatever runs the model answers, and has not the version that is served: another may be there."""


class DeadlineError(RequestError):
    """The response was not ready in time."""

    status = 504
    code = "deadline_exceeded"
    default_hint = "try again when the server is less busy, or raise MTCP_DEADLINE_S on the server"
