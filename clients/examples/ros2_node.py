"""A ROS 2 node: images in, depth, labels and a point cloud out. ``python -m clients.examples.ros2_node``.

It subscribes to ``image`` (sensor_msgs/Image) and ``camera_info`` (sensor_msgs/CameraInfo), and publishes
``depth`` (32FC1, metres, 0 = invalid), ``labels`` (8UC1, class ids) and ``points`` (PointCloud2 with
colours), with the header of the image. Points are in ROS's optical frame: x right, y down, z forward. The
model runs in the node's process; of the images that come while one is worked on, the last is taken next.

The handling of messages is tested against the message definitions of ROS 2 (``rosbags``). The node itself has
not run on a robot.
"""

import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mtcp_serve
from mtcp_serve.inference.camera import CameraRequest
from mtcp_serve.outputs.points import PointCloud

CHANNELS = {"rgb8": (0, 1, 2), "bgr8": (2, 1, 0), "rgba8": (0, 1, 2), "bgra8": (2, 1, 0), "mono8": (0, 0, 0)}
"""Where red, green and blue stand in a pixel, by the encoding of an image."""
_WIDTHS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}
_FLOAT32 = 7  # PointField.FLOAT32
_POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4")])


@dataclass(frozen=True)
class Messages:
    """The classes of messages, and what makes a field of bytes for them."""

    image: Callable[..., Any]
    point_cloud: Callable[..., Any]
    point_field: Callable[..., Any]
    pack: Callable[[bytes], Any]


def read_image(message: Any) -> NDArray[np.uint8]:
    """The pixels of an Image, ``[height, width, 3]`` RGB; rows may be padded.

    Raises:
        ValueError: its encoding is none of `CHANNELS`, or it is too short.
    """
    if message.encoding not in CHANNELS:
        raise ValueError(f"the encoding is {message.encoding}, it must be one of {', '.join(CHANNELS)}")
    width = _WIDTHS[message.encoding]
    data = np.frombuffer(bytes(message.data), np.uint8)
    if message.step < message.width * width or data.size < message.height * message.step:
        raise ValueError(f"the image has {data.size} bytes, too few for {message.width} x {message.height}")
    rows = data[: message.height * message.step].reshape(message.height, message.step)
    pixels = rows[:, : message.width * width].reshape(message.height, message.width, width)
    return np.ascontiguousarray(pixels[..., CHANNELS[message.encoding]])


def read_camera(message: Any) -> CameraRequest | None:
    """The intrinsics of a CameraInfo; ``None`` of one that is not calibrated (all zero)."""
    matrix = getattr(message, "k", None)
    fx, _, cx, _, fy, cy, *_ = map(float, matrix if matrix is not None else message.K)
    return CameraRequest(intrinsics=(fx, fy, cx, cy)) if fx > 0 and fy > 0 else None


def write_map(messages: Messages, header: Any, values: NDArray[Any]) -> Any:
    """A map as an Image: 32FC1 of float32, 8UC1 of uint8."""
    height, width = values.shape
    data = values.astype("<f4") if values.dtype == np.float32 else values.astype(np.uint8)
    return messages.image(
        header=header,
        height=height,
        width=width,
        encoding="32FC1" if values.dtype == np.float32 else "8UC1",
        is_bigendian=0,
        step=width * data.itemsize,
        data=messages.pack(data.tobytes()),
    )


def write_cloud(messages: Messages, header: Any, cloud: PointCloud) -> Any:
    """The points as a PointCloud2 in the optical frame: x right, y down, z forward, and colours."""
    points = np.empty(len(cloud.positions), _POINT)
    points["x"], points["y"], points["z"] = (cloud.positions * (1, -1, -1)).astype(np.float32).T
    red, green, blue = cloud.colors.astype(np.uint32).T
    points["rgb"] = red << 16 | green << 8 | blue
    fields = [
        messages.point_field(name=name, offset=4 * place, datatype=_FLOAT32, count=1)
        for place, name in enumerate(_POINT.names or ())
    ]
    return messages.point_cloud(
        header=header,
        height=1,
        width=len(points),
        fields=fields,
        is_bigendian=False,
        point_step=_POINT.itemsize,
        row_step=points.nbytes,
        data=messages.pack(points.tobytes()),
        is_dense=True,
    )


def main() -> None:
    """Run the node until it is told to stop."""
    try:
        rclpy, node_module = import_module("rclpy"), import_module("rclpy.node")
        sensors = import_module("sensor_msgs.msg")
    except ImportError as error:
        sys.exit(f"this needs a sourced ROS 2 installation ({error})")
    messages = Messages(sensors.Image, sensors.PointCloud2, sensors.PointField, lambda data: array("B", data))
    model = mtcp_serve.load()
    rclpy.init()
    node = node_module.Node("mtcp_serve")
    depth = node.create_publisher(sensors.Image, "depth", 1)
    labels = node.create_publisher(sensors.Image, "labels", 1)
    points = node.create_publisher(sensors.PointCloud2, "points", 1)
    camera: list[CameraRequest | None] = [None]

    def seen(message: Any) -> None:
        found = model.predict(read_image(message), camera=camera[0])
        depth.publish(write_map(messages, message.header, found["depth"]))
        labels.publish(write_map(messages, message.header, found["semseg"]))
        points.publish(write_cloud(messages, message.header, found.points()))

    node.create_subscription(
        sensors.CameraInfo, "camera_info", lambda message: camera.__setitem__(0, read_camera(message)), 1
    )
    node.create_subscription(sensors.Image, "image", seen, 1)  # a queue of one: the newest image
    try:
        rclpy.spin(node)
    finally:
        node.destroy_node()
        rclpy.shutdown()
        model.close()


if __name__ == "__main__":
    main()
