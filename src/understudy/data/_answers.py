"""Answers to requests for views: made in this process, or by the workers of a `DataLoader`."""

from collections.abc import Callable
from typing import Any, final

from torch import Tensor
from torch.utils.data import Dataset

from understudy.batch import Objects
from understudy.data._workers import Sent, received, received_objects, sent, sent_objects
from understudy.data.mixup import Blend
from understudy.data.views import ViewBatch
from understudy.errors import OutOfMemory, UnderstudyError, memory_ran_out

Request = tuple[Tensor, Tensor, Blend | None]
"""Image numbers and numbers for `Views.show` of one micro-batch, and how to mix it."""

Response = tuple[Sent, Any] | UnderstudyError
"""Images of one micro-batch, with their objects for detection; or the error that prevented them."""


@final
class ViewDataset(Dataset[Response]):
    """Micro-batches by request: the dataset of a DataLoader whose worker processes make them."""

    def __init__(self, show: Callable[[Tensor, Tensor], ViewBatch]) -> None:
        self.show = show

    def __getitem__(self, request: tuple[Sent, Sent, Blend | None]) -> Response:
        """Return the answer to a request."""
        index, number, blend = received(request[0]), received(request[1]), request[2]
        try:
            views = self.show(index, number)
        except UnderstudyError as error:
            # Raised in a worker, its one sentence would arrive inside a traceback.
            return error
        except (RuntimeError, MemoryError) as error:
            if not memory_ran_out(error):
                raise
            return OutOfMemory(
                f"{len(index)} images do not fit into memory at once: set a smaller data.size or "
                "training.batch, or more training.accumulate."
            )
        images, objects = views if isinstance(views, tuple) else (views, None)
        return sent(images if blend is None else blend(images)), sent_objects(objects)


def unchanged(response: Any) -> Any:
    """Return a response as it is."""
    return response


def unwrap(response: Response) -> tuple[Tensor, Objects | None]:
    """Return images and objects of a response; raise the error that it is."""
    if isinstance(response, UnderstudyError):
        raise response
    images, objects = response
    return received(images), received_objects(objects)
