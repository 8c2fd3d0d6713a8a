"""Replace modules of Understudy in a network to deploy by modules of torch alone.

A network that is to be deployed should need nothing of Understudy: TorchScript cannot read the
annotations of its classes, and a pickled network would ask for them. `torch.fx` turns such a module
into a `GraphModule`. Submodules and parameters keep their names, so that a state dict fits as
before, except that buffers which nothing computes with are gone.
"""

from collections import OrderedDict
from inspect import signature
from typing import final

from torch import fx, nn
from torchvision.ops import Permute

from understudy.config.image_size import Size, sides
from understudy.layers.kd_layer import WithLayer
from understudy.models.cifar.vgg import VGG

_OWN = "understudy."


def as_library_modules(module: nn.Module, size: Size | None = None) -> nn.Module:
    """Return a network without classes of Understudy; parts of it are replaced in place.

    Args:
        module: The network. A layer of letkd or simkd stays one of Understudy only behind a module
            that is called with more than the map, as in some networks of transformers.
        size: Size of its images, for a network whose layers depend on it.
    """
    if size is not None and isinstance(module, VGG):
        module.fix_size(sides(size)[1])
    # The innermost first: a module is then called as it is by what is traced around it.
    for path, part in reversed(list(module.named_modules())):
        if not path or not _is_own(part) or _is_own(module.get_submodule(path.rpartition(".")[0])):
            continue
        module.set_submodule(path, _without_own(part))
    return _without_own(module) if _is_own(module) else module


def own_classes(module: nn.Module) -> list[str]:
    """Return the names of the classes of Understudy in a network, sorted."""
    return sorted({type(part).__name__ for part in module.modules() if _is_own(part)})


def _is_own(module: nn.Module) -> bool:
    return type(module).__module__.startswith(_OWN)


def _without_own(module: nn.Module) -> nn.Module:
    if not isinstance(module, WithLayer):
        return _traced(module)
    module.layer = _traced(module.layer)
    if len(signature(module.body.forward).parameters) != 1 or module.grid is not None:
        return module
    steps: OrderedDict[str, nn.Module] = OrderedDict(body=module.body, layer=module.layer)
    if module.channels_last:
        steps = OrderedDict(
            body=module.body,
            planes=Permute([0, 3, 1, 2]),
            layer=module.layer,
            back=Permute([0, 2, 3, 1]),
        )
    return nn.Sequential(steps).train(module.training)


@final
class _Tracer(fx.Tracer):
    """Traces through modules of Understudy alone."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return True for a module of another library, which is called as it is."""
        return not _is_own(m)


def _traced(module: nn.Module) -> fx.GraphModule:
    graph = _Tracer().trace(module)
    for node in graph.nodes:
        node.type = None  # the annotation of an argument, which TorchScript cannot read
    return fx.GraphModule(module, graph, class_name=type(module).__name__).train(module.training)
