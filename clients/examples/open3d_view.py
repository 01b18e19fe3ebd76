"""The point cloud of an image in Open3D: ``python -m clients.examples.open3d_view IMAGE``.

It needs ``pip install open3d``, and ends with status 3 where that is missing. Without a screen,
``--save FILE.ply`` writes what would be shown.
"""

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

import mtcp_serve
from mtcp_serve.utils.exit_status import ExitStatus


def main(
    image: Annotated[Path, typer.Argument(help="Image file.")],
    save: Annotated[Path | None, typer.Option(help="Write the points to this file instead.")] = None,
) -> None:
    """Show the image's points; the mouse turns them."""
    try:
        open3d: Any = import_module("open3d")
    except (ImportError, OSError) as error:  # OSError: a library of the system that it needs
        typer.echo(f"error: this needs Open3D: pip install open3d ({error})", err=True)
        raise typer.Exit(ExitStatus.CANNOT_HERE) from error
    with mtcp_serve.load() as model:
        found = model.predict(image).points()
    cloud = open3d.geometry.PointCloud()
    cloud.points = open3d.utility.Vector3dVector(found.positions)
    cloud.normals = open3d.utility.Vector3dVector(found.normals)
    cloud.colors = open3d.utility.Vector3dVector(found.colors / 255)
    if save is not None:
        open3d.io.write_point_cloud(str(save), cloud)
        return
    open3d.visualization.draw_geometries([cloud])


if __name__ == "__main__":
    typer.run(main)
