"""What ``mtcp-serve predict`` works on: files and folders that exist, cameras and addresses."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mtcp_serve.cli.common import ERRORS, fail
from mtcp_serve.errors import MtcpServeError
from mtcp_serve.utils.exit_status import ExitStatus

if TYPE_CHECKING:
    from mtcp_serve.offline.inputs import Inputs, Item
    from mtcp_serve.offline.live.address import Address


def parse_input(text: str) -> "Path | Address":
    """The file or folder, camera or address that was written.

    Raises:
        BadParameter: it is none that can be.
    """
    from mtcp_serve.offline.live.address import Address

    if Address.is_one(text):
        try:
            return Address(text)
        except MtcpServeError as error:
            raise typer.BadParameter(str(error)) from error
    path = Path(text)
    if not path.exists():
        raise typer.BadParameter(f"Path {text!r} does not exist.")
    return path


def check_moving(found: "Inputs") -> None:
    """End where nothing that was found moves, for what is asked of videos alone."""
    if not any(item.video or item.address for item in found.items):
        fail(
            "--video, --overlay, --every and --smooth are for videos, cameras, streams and addresses",
            ExitStatus.NOTHING_DONE,
        )


def check_video(found: "Inputs") -> None:
    """End where there are videos and nothing that reads them."""
    videos = [item.shown for item in found.items if item.video or _streams(item)]
    if videos:
        try:
            import av  # noqa: F401
        except ImportError as error:
            fail(
                f"{videos[0]} has video; pip install 'mtcp-serve[video]' brings what reads it ({error})",
                ExitStatus.CANNOT_HERE,
            )


def _streams(item: "Item") -> bool:
    """Whether it is sure to be a camera or stream; a web address may have a picture."""
    return item.address is not None and item.address.scheme not in ("http", "https")


def check_one_image(found: "Inputs", option: str) -> None:
    """End where there is not one image, which ``option`` is of."""
    if len(found.items) != 1 or found.items[0].video or found.items[0].address:
        fail(f"{option} is of one image: give one", ExitStatus.NOTHING_DONE)


def check_live(found: "Inputs", frames: int | None, seconds: float | None, allow_private: bool) -> None:
    """End where nothing that was found is live, for what is asked of cameras and streams alone."""
    if all(item.address is None for item in found.items) and (
        frames is not None or seconds is not None or allow_private
    ):
        fail(
            "--frames, --seconds and --allow-private are for cameras, streams and addresses",
            ExitStatus.NOTHING_DONE,
        )


def say_what_is_left_out(found: "Inputs") -> None:
    """Tell of what lies in the folders and is not worked on."""
    from mtcp_serve.offline.inputs import VIDEO_SUFFIXES

    if found.others:
        videos = sum(path.suffix.lower() in VIDEO_SUFFIXES for path in found.others)
        named = f", {videos} of them videos: name those" if videos else ""
        ERRORS.print(f"left out: {len(found.others)} files that are not images{named}")
    if found.folders:
        ERRORS.print(f"left out: {len(found.folders)} folders; --recursive looks into them")
    if found.links:
        ERRORS.print(f"left out: {len(found.links)} links to folders; name those that are meant")
