"""Downloads of weights and data sets: given up within seconds, with the cause. Loads no torch.

The libraries of the hub try a failed connection again five times for every file, and print a line
for each; those of torch wait as long as the system does.
"""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from understudy.errors import NetworkError

_SECONDS = 10.0
"""Time until a connection that answers nothing is given up."""

_PORTS = {"http": 80, "https": 443}


def unreachable(address: str) -> str:
    """Return why the host of an address, or the proxy to it, cannot be reached; empty if it can.

    Args:
        address: An address such as `https://huggingface.co`.
    """
    url = urlsplit(address)
    proxy = getproxies().get(url.scheme)
    if proxy and url.hostname and not proxy_bypass(url.hostname):
        url = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    try:
        place = (url.hostname or "", url.port or _PORTS.get(url.scheme, 443))
        socket.create_connection(place, timeout=_SECONDS).close()
    except (OSError, ValueError) as error:
        return f"no connection to {url.hostname}: {_words(error)}"
    return ""


@contextmanager
def from_hub() -> Iterator[str]:
    """Let the libraries of the hub read their cache alone while the hub cannot be reached.

    Yields:
        Why it cannot be reached; empty if it can.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        yield "no connection: HF_HUB_OFFLINE is set"
        return
    reason = unreachable(constants.ENDPOINT)
    modules: list[Any] = [constants, sys.modules.get("datasets.config")] if reason else []
    before = [(module, module.HF_HUB_OFFLINE) for module in modules if module]
    for module, _ in before:
        module.HF_HUB_OFFLINE = True
    try:
        yield reason
    finally:
        # That of data sets may have been True before, by HF_DATASETS_OFFLINE.
        for module, value in before:
            module.HF_HUB_OFFLINE = value


@contextmanager
def from_torch(of: str, failed: str) -> Iterator[None]:
    """Let downloads of torch end if a connection answers nothing, and say what went wrong.

    Args:
        of: What is built, and may have to be downloaded.
        failed: What is said of any other failure, before its reason.

    Raises:
        NetworkError: Something failed.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SECONDS)
    try:
        yield
    except Exception as error:
        raise NetworkError(_failed_download(error, of) or f"{failed}: {error}") from error
    finally:
        socket.setdefaulttimeout(before)


def _failed_download(error: Exception, of: str) -> str:
    """Return why a download of torch failed, and what to do; empty if the error is another one."""
    if not isinstance(error, URLError | TimeoutError | ConnectionError):
        return ""
    from torch import hub

    return (
        f"The weights of {of} cannot be downloaded ({_words(getattr(error, 'reason', error))}). "
        "Where there is a connection, download the file that is named above; then put it into "
        f"{hub.get_dir()}/checkpoints, or give it as --student.weights FILE or "
        "--teacher.weights FILE."
    )


def _words(error: object) -> str:
    return str(getattr(error, "strerror", "") or error).rstrip(".")
