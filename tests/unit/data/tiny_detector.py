"""A YuNet of one layer: pure red is a face, and it always has the same size. OpenCV loads it like the real one."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDE = 40  # of the box, in pixels of the image that the network sees
EYES = ((-8.0, -4.0), (8.0, -4.0))  # from the middle of the red square
MARK = 8  # side of the red square


def write_detector(path: Path) -> Path:
    """The ONNX file."""
    import onnx
    from onnx import TensorProto, helper

    points = [*EYES, (0, 2), (-6, 8), (6, 8)]  # eyes, nose, corners of the mouth
    middle = 4 / 8  # of a cell of 8 pixels
    values = {
        "bbox": [middle, middle, np.log(SIDE / 8), np.log(SIDE / 8)],
        "kps": [part / 8 + middle for point in points for part in point],
    }
    nodes, weights, outputs = [], [], []

    def layer(name: str, stride: int, kernel: np.ndarray, bias: list[float]) -> None:
        weights.append(helper.make_tensor(f"{name}_w", TensorProto.FLOAT, kernel.shape, kernel.ravel()))
        weights.append(helper.make_tensor(f"{name}_b", TensorProto.FLOAT, [len(bias)], bias))
        weights.append(helper.make_tensor(f"{name}_s", TensorProto.INT64, [3], [1, -1, len(bias)]))
        nodes.append(helper.make_node("Conv", ["input", f"{name}_w", f"{name}_b"], [f"{name}_c"],
                                      kernel_shape=[stride, stride], strides=[stride, stride]))  # fmt: skip
        nodes.append(helper.make_node("Transpose", [f"{name}_c"], [f"{name}_t"], perm=[0, 2, 3, 1]))
        nodes.append(helper.make_node("Reshape", [f"{name}_t", f"{name}_s"], [name]))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None, len(bias)]))

    for kind, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        for stride in (8, 16, 32):
            kernel, bias = np.zeros((channels, 3, stride, stride), np.float32), [0.0] * channels
            if kind == "cls" and stride == 8:
                kernel[:, 2], kernel[:, 1], bias = 1 / 6400, -1 / 6400, [-1.0]  # red less green, blue comes first
            elif kind == "obj":
                bias = [1.0]
            elif kind in values:
                bias = values[kind]
            layer(f"{kind}_{stride}", stride, kernel, bias)
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 640, 640])
    graph = helper.make_graph(nodes, "tiny", [image], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.save_model(model, str(path))
    return path


def photograph(size: tuple[int, int], marks: list[tuple[int, int]], side: int = MARK) -> Image.Image:
    """A grey picture, width x height, with a red square at each place (x, y of its corner)."""
    image = Image.new("RGB", size, (120, 120, 120))
    for x, y in marks:
        ImageDraw.Draw(image).rectangle((x, y, x + side - 1, y + side - 1), fill=(255, 0, 0))
    return image
