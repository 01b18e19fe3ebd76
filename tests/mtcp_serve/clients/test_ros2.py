"""The ROS 2 example's messages, through the wire format of ROS 2 (CDR) as rosbags writes and reads it."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore

from clients.examples.ros2_node import Messages, read_camera, read_image, write_cloud, write_map
from mtcp_serve.inference.camera import CameraRequest
from mtcp_serve.outputs.points import PointCloud
from tests.mtcp_serve.support import noise

STORE = get_typestore(Stores.ROS2_HUMBLE)
TYPES = STORE.types
IMAGE, CLOUD = "sensor_msgs/msg/Image", "sensor_msgs/msg/PointCloud2"
MESSAGES = Messages(
    TYPES[IMAGE],
    TYPES[CLOUD],
    TYPES["sensor_msgs/msg/PointField"],
    lambda data: np.frombuffer(data, np.uint8),
)
HEADER = TYPES["std_msgs/msg/Header"](
    stamp=TYPES["builtin_interfaces/msg/Time"](sec=12, nanosec=34), frame_id="camera_optical"
)


def over_the_wire(message: Any, name: str) -> Any:
    return STORE.deserialize_cdr(STORE.serialize_cdr(message, name), name)


def image_message(pixels: NDArray[np.uint8], encoding: str, padding: int = 0) -> Any:
    height, width = pixels.shape[:2]
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (0, padding)))
    return TYPES[IMAGE](
        header=HEADER,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=rows.shape[1],
        data=rows.ravel(),
    )


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "order"),
    [("rgb8", [0, 1, 2]), ("bgr8", [2, 1, 0]), ("rgba8", [0, 1, 2, 0]), ("bgra8", [2, 1, 0, 1])],
)
def test_an_image_comes_in_as_rgb(encoding: str, order: list[int], padding: int) -> None:
    pixels = noise(6, 9)
    message = over_the_wire(image_message(pixels[..., order], encoding, padding), IMAGE)
    assert np.array_equal(read_image(message), pixels)


def test_grey_and_what_cannot_be_read() -> None:
    grey = noise(6, 9)[..., 0]
    assert np.array_equal(read_image(image_message(grey, "mono8")), np.dstack([grey] * 3))
    with pytest.raises(ValueError, match="the encoding is yuv422"):
        read_image(image_message(grey, "yuv422"))
    short = image_message(grey, "mono8")
    short.height = 7
    with pytest.raises(ValueError, match="54 bytes, too few for 9 x 7"):
        read_image(short)


def test_the_camera_is_that_of_the_camera_info() -> None:
    name = "sensor_msgs/msg/CameraInfo"

    def info(matrix: list[float]) -> Any:
        region = TYPES["sensor_msgs/msg/RegionOfInterest"](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        message = TYPES[name](
            header=HEADER,
            height=480,
            width=640,
            distortion_model="plumb_bob",
            d=np.zeros(5),
            k=np.array(matrix, np.float64),
            r=np.eye(3).ravel(),
            p=np.zeros(12),
            binning_x=0,
            binning_y=0,
            roi=region,
        )
        return over_the_wire(message, name)

    calibrated = read_camera(info([500, 0, 310, 0, 520, 250, 0, 0, 1]))
    assert calibrated == CameraRequest(intrinsics=(500, 520, 310, 250))
    assert read_camera(info([0.0] * 9)) is None


def test_depth_and_labels_go_out_as_images() -> None:
    depth = np.random.default_rng(0).uniform(0.1, 9, (6, 9)).astype(np.float32)
    message = over_the_wire(write_map(MESSAGES, HEADER, depth), IMAGE)
    assert (message.encoding, message.step, message.header.frame_id) == ("32FC1", 36, "camera_optical")
    assert np.array_equal(np.frombuffer(message.data.tobytes(), "<f4").reshape(6, 9), depth)
    labels = noise(6, 9)[..., 0]
    message = over_the_wire(write_map(MESSAGES, HEADER, labels), IMAGE)
    assert (message.encoding, message.step) == ("8UC1", 9)
    assert np.array_equal(message.data.reshape(6, 9), labels)


def test_points_go_out_in_the_optical_frame() -> None:
    positions = np.array([[1, 2, -3], [-4, -5, -6]], np.float32)
    colors = np.array([[255, 1, 2], [0, 128, 255]], np.uint8)
    cloud = PointCloud(positions, np.zeros_like(positions), colors)
    message = over_the_wire(write_cloud(MESSAGES, HEADER, cloud), CLOUD)
    assert (message.height, message.width, message.point_step, message.row_step) == (1, 2, 16, 32)
    assert [(field.name, field.offset, field.datatype) for field in message.fields] == [
        ("x", 0, 7), ("y", 4, 7), ("z", 8, 7), ("rgb", 12, 7),
    ]  # fmt: skip
    points = np.frombuffer(message.data.tobytes(), [("place", "<f4", 3), ("bgr", "u1", 4)])
    assert points["place"].tolist() == [[1, -2, 3], [-4, 5, 6]]
    assert points["bgr"][:, 2::-1].tolist() == colors.tolist()
