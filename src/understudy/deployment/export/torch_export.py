"""Write a network as a program of `torch.export`, which needs none of its classes to be run."""

import io
from pathlib import Path

import torch
from torch import Tensor, nn

from understudy import files
from understudy.deployment.export.onnx_export import Runner, exporting, free_dimensions
from understudy.errors import NetworkError


def write_program(graph: nn.Module, example: Tensor, path: Path, *, any_size: bool = False) -> None:
    """Write a network of whole images, for batches of any number of images.

    Args:
        graph: In evaluation mode.
        example: Two images as it takes them.
        path: File to write; `torch.export.load(path).module()` reads it.
        any_size: Let height and width of the images be free too.

    Raises:
        NetworkError: `torch.export` fails.
    """
    with exporting("torch.export"):
        program = torch.export.export(
            graph, (example,), dynamic_shapes=(free_dimensions(any_size=any_size),)
        )
        content = io.BytesIO()
        torch.export.save(program, content)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, content.getvalue(), again="export again")


def runner(path: Path) -> Runner:
    """Return a function that runs a file of `write_program`.

    Raises:
        NetworkError: The file cannot be read.
    """
    try:
        module = torch.export.load(path).module()
    except Exception as error:
        raise NetworkError(f"torch.export cannot read {path}: {error}") from error

    @torch.no_grad()
    def run(images: Tensor) -> list[Tensor]:
        return [module(images)]

    return run
