"""Tiny trees in the layouts of the published data sets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

from tests.training.data.trees import photo, write_png
from training.tasks import make_task

SIZE = (24, 32)
NYUD_TASKS = (make_task("semseg", "nyu40"), make_task("depth"), make_task("normals"), make_task("edges"))
PASCAL_TASKS = (
    make_task("semseg", "voc"),
    make_task("normals"),
    make_task("saliency"),
    make_task("parsing", "pascal_parts"),
    make_task("edges"),
)
CITY_TASKS = (
    make_task("semseg", "cityscapes"),
    make_task("depth"),
    make_task("parsing", "cityscapes_parts"),
)
FLOOR_FROM = 12
"""First row of the floor of `room`."""


def room() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Depth (metres) and normals [H, W, 3] (x right, y up) of a right-hand wall over a floor."""
    rows, columns = np.mgrid[0 : SIZE[0], 0 : SIZE[1]].astype(np.float32)
    floor = rows >= FLOOR_FROM
    depth = np.where(floor, 4 - 0.08 * (rows - FLOOR_FROM), 6 - 0.08 * columns).astype(np.float32)
    normals = np.where(floor[..., None], [0, 0.8, 0.6], [-0.8, 0, 0.6]).astype(np.float32)
    return depth, normals


def write_npy(path: Path, values: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)


def write_mat(path: Path, **values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, values)


def write_ids(path: Path, *ids: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in ids))


def write_nyud(root: Path, release: str, signs: tuple[int, int] = (1, 1), *ids: str) -> None:
    """NYUD_MT as ``npy`` or ``png`` release, its normals' x and y multiplied by ``signs``."""
    depth, normals = room()
    normals = normals * np.array([*signs, 1], np.float32)
    depth[0], normals[0] = 0, 0
    segmentation = np.full(SIZE, 4, np.uint8)  # bed
    segmentation[0], segmentation[1] = 0, 40
    edges = np.zeros(SIZE, np.float32)
    edges[FLOOR_FROM] = 1
    for name in ids or ("0001",):
        write_png(root / "segmentation" / f"{name}.png", segmentation)
        write_npy(root / "depth" / f"{name}.npy", depth)
        if release == "npy":
            write_png(root / "images" / f"{name}.jpg", photo(*SIZE))
            write_npy(root / "normals" / f"{name}.npy", normals)
            write_npy(root / "edge" / f"{name}.npy", edges)
        else:
            write_png(root / "images" / f"{name}.png", photo(*SIZE))
            write_png(root / "normals" / f"{name}.png", ((normals + 1) * 127.5).round().astype(np.uint8))
            write_png(root / "edge" / f"{name}.png", (255 * edges).astype(np.uint8))
    write_ids(root / "gt_sets" / "train.txt", *(ids or ("0001",)))


def struct(**fields: object) -> dict[str, object]:
    return dict(fields)


def thing(
    class_ind: int, mask: NDArray[np.bool_], parts: Mapping[str, NDArray[np.bool_]]
) -> dict[str, object]:
    """One object of PASCAL-Part; no part is MATLAB's empty matrix."""
    pieces = np.zeros(len(parts), [("part_name", object), ("mask", object)])
    for index, (name, piece) in enumerate(parts.items()):
        pieces[index] = (name, piece.astype(np.uint8))
    return struct(
        **{"class": "thing"},
        class_ind=class_ind,
        mask=mask.astype(np.uint8),
        parts=pieces if parts else np.zeros((0, 0)),
    )


def write_parts(path: Path, *things: dict[str, object]) -> None:
    objects = np.zeros(len(things), [(name, object) for name in ("class", "class_ind", "mask", "parts")])
    for index, one in enumerate(things):
        objects[index] = tuple(one[name] for name in ("class", "class_ind", "mask", "parts"))
    write_mat(path, anno=struct(imname="x", objects=objects))


def person() -> dict[str, object]:
    """A person in the left half: head, neck, hand and foot one below the other."""
    mask = np.zeros(SIZE, bool)
    mask[:, :16] = True
    parts = {}
    for index, name in enumerate(("head", "neck", "lhand", "rfoot")):
        parts[name] = np.zeros(SIZE, bool)
        parts[name][6 * index : 6 * index + 5, :16] = True
    return thing(15, mask, parts)


def write_pascal(root: Path, *ids: str) -> None:
    """PASCAL_MT; the first id has VOC's mask, the others PASCAL-Context's."""
    ids = ids or ("2008_000001", "2008_000002")
    regions = np.full(SIZE, 440, np.uint16)  # wall
    regions[FLOOR_FROM:] = 187  # grass, which NYUv2 does not know
    normals = np.broadcast_to(((np.array([0, 0.6, 0.8]) + 1) * 127.5).round().astype(np.uint8), (*SIZE, 3))
    saliency = np.full(SIZE, 127, np.uint8)
    saliency[:, 16:] = 128
    semseg = np.full(SIZE, 15, np.uint8)
    semseg[0] = 255
    for index, name in enumerate(ids):
        write_png(root / "JPEGImages" / f"{name}.jpg", photo(*SIZE))
        write_png(root / "semseg" / ("pascal-context" if index else "VOC12") / f"{name}.png", semseg)
        write_png(root / "sal_distill" / f"{name}.png", saliency)
        write_png(root / "normals_distill" / f"{name}.png", np.ascontiguousarray(normals))
        write_mat(root / "pascal-context" / "trainval" / f"{name}.mat", LabelMap=regions)
        write_parts(root / "human_parts" / f"{name}.mat", person())
    write_ids(root / "ImageSets" / "Context" / "train.txt", *ids)


def city_files(root: Path, city: str, name: str) -> dict[str, Path]:
    return {
        kind: root / kind / "train" / city / f"{name}_{suffix}"
        for kind, suffix in (
            ("leftImg8bit", "leftImg8bit.png"),
            ("gtFine", "gtFine_labelIds.png"),
            ("disparity", "disparity.png"),
            ("gtFinePanopticParts", "gtFinePanopticParts.tif"),
        )
    }


def write_city(root: Path, city: str = "ulm", name: str = "ulm_000000_000019") -> dict[str, Path]:
    files = city_files(root, city, name)
    ids = np.full(SIZE, 26, np.uint8)  # car
    ids[0], ids[1], ids[2] = 4, 255, 33
    disparity = np.full(SIZE, 256 * 32 + 1, np.uint16)
    disparity[0], disparity[1] = 0, 1
    uids = np.full(SIZE, 2600102, np.int32)  # wheels of the first car
    for row, uid in enumerate((7, 24003, 2401000, 2401001, 2502104, 2800305, 3300103)):
        uids[row] = uid
    write_png(files["leftImg8bit"], photo(*SIZE))
    write_png(files["gtFine"], ids)
    write_png(files["disparity"], disparity)
    files["gtFinePanopticParts"].parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(uids).save(files["gtFinePanopticParts"])
    return files
