"""Quantise an ONNX file to int8 by ONNX Runtime, with ranges measured on training images."""

import logging
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, final

from torch import Tensor

from understudy import files
from understudy.deployment.export.onnx_export import first_line, needed, silenced
from understudy.errors import NameNotFound, NetworkError

CALIBRATION_IMAGES = 256
"""Training images on which the ranges of activations are measured."""
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_QUANTISED = (
    *_WEIGHTED,
    *("Add", "Mul", "Relu", "Clip", "LeakyRelu", "Concat", "Split"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean"),
    *("Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze"),
)
"""Operators that are computed in int8; softmax, norms and others stay in fp32."""


@final
class _Calibration:
    """Batches of images in the form of ONNX Runtime's `CalibrationDataReader`."""

    def __init__(self, name: str, batches: Iterable[Tensor]) -> None:
        self._name, self._batches = name, iter(batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return ({self._name: batch.numpy()} for batch in self._batches)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch.numpy()}


def quantise(
    source: Path, target: Path, batches: Iterable[Tensor], *, keep: Sequence[str] = ()
) -> None:
    """Write an int8 file: weights per output channel, activations by the range that they had.

    Batch norms are folded first, and every quantised tensor has a QuantizeLinear and a
    DequantizeLinear around it (QDQ), as other runtimes than this one read it too.

    Args:
        source: File in fp32, for batches of any size.
        target: File to write.
        batches: Training images as the graph takes them.
        keep: Layers to leave in fp32: names as `layers` gives them, with `*` and `?`.

    Raises:
        NameNotFound: There is no layer of a name in `keep`.
        NetworkError: ONNX Runtime fails.
    """
    onnx, tools = needed("onnx"), needed("onnxruntime.quantization")
    shapes = needed("onnxruntime.quantization.shape_inference")
    with tempfile.TemporaryDirectory(prefix="understudy") as folder, silenced(logging.WARNING):
        prepared, written = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        try:
            shapes.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            model = onnx.load(str(prepared))
            tools.quantize_static(
                str(prepared),
                str(written),
                _Calibration(model.graph.input[0].name, batches),
                quant_format=tools.QuantFormat.QDQ,
                op_types_to_quantize=list(_QUANTISED),
                per_channel=True,
                activation_type=tools.QuantType.QUInt8,
                weight_type=tools.QuantType.QInt8,
                nodes_to_exclude=_nodes(layers(model), keep),
            )
        except NameNotFound:
            raise
        except Exception as error:
            raise NetworkError(
                f"ONNX Runtime cannot quantise {source}: {first_line(error)}"
            ) from error
        files.write(target, written.read_bytes(), again="export again")


def layers(model: Any) -> dict[str, str]:
    """Return layer → node of a graph, for every node with weights; a layer is named as in torch."""
    weights = {tensor.name for tensor in model.graph.initializer}
    named = {}
    for node in model.graph.node:
        own = [name for name in node.input[1:2] if name in weights]
        if node.op_type in _WEIGHTED and own:
            named[_layer(own[0])] = node.name
    return named


def _layer(weight: str) -> str:
    """Return the path of a layer by the name of its weight, such as `layer1.0.conv1`."""
    for part in ("_bn_fusion", ".weight"):
        weight = weight.partition(part)[0] or weight
    return weight.removeprefix("network.")


def _nodes(known: Mapping[str, str], keep: Sequence[str]) -> list[str]:
    nodes = []
    for pattern in keep:
        matching = [node for layer, node in known.items() if fnmatchcase(layer, pattern)]
        if not matching:
            raise NameNotFound("layer", pattern, known)
        nodes += matching
    return nodes


def worst_layers(source: Path, target: Path, batches: Iterable[Tensor]) -> list[tuple[str, float]]:
    """Return the layers behind which int8 is furthest from fp32, compared with the layer before.

    Returns:
        Layer, and by how many decibels the ratio of signal to noise falls in it; the worst first.
    """
    debug, onnx = needed("onnxruntime.quantization.qdq_loss_debug"), needed("onnx")
    images, outputs = list(batches), []
    with tempfile.TemporaryDirectory(prefix="understudy") as folder, silenced(logging.WARNING):
        for number, path in enumerate((source, target)):
            augmented = Path(folder) / f"{number}.onnx"
            debug.modify_model_output_intermediate_tensors(str(path), str(augmented))
            reader = _Calibration(onnx.load(str(path)).graph.input[0].name, images)
            outputs.append(debug.collect_activations(str(augmented), reader))
        matched = debug.create_activation_matching(outputs[1], outputs[0])
    ratios = {
        tensor: _decibels(values["float"], values["post_qdq"])
        for tensor, values in matched.items()
        if "float" in values and "post_qdq" in values
    }
    by_layer = _by_layer(onnx.load(str(source)), ratios)
    falls, before = list[tuple[str, float]](), _IDEAL
    for layer, ratio in by_layer.items():
        falls.append((layer, before - ratio))
        before = ratio
    return sorted(falls, key=lambda pair: -pair[1])


_IDEAL = 40.0
"""Decibels that eight bits give where the range fits the values."""


def _decibels(fp32: Sequence[Any], int8: Sequence[Any]) -> float:
    """Return the ratio of signal to noise of all batches."""
    signal, noise = (
        sum(float((x.astype("float64") ** 2).sum()) for x in part)
        for part in (fp32, [a - b for a, b in zip(fp32, int8, strict=True)])
    )
    return 10 * math.log10(signal / noise) if signal and noise else math.inf


def _by_layer(model: Any, ratios: Mapping[str, float]) -> dict[str, float]:
    """Return layer → lowest ratio of the tensors up to the next layer, in the graph's order."""
    of_node = {node: layer for layer, node in layers(model).items()}
    lowest, current = dict[str, float](), ""
    for node in model.graph.node:
        current = of_node.get(node.name, current)
        for tensor in node.output:
            if current and ratios.get(tensor, math.inf) < lowest.get(current, math.inf):
                lowest[current] = ratios[tensor]
    return lowest
