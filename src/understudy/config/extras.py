"""What to install for a part of Understudy that needs more than the package itself."""

from importlib import metadata


def installation(extra: str) -> str:
    """Return the command that installs the packages of an extra.

    It names the packages, and not Understudy: it is the same for whoever installed that from a
    checkout or from a wheel, and no index is asked for a project of the same name.

    Args:
        extra: Name of an extra in pyproject.toml, such as `export`.

    >>> installation("tune")
    "pip install 'optuna>=4'"
    """
    try:
        requirements = metadata.requires("understudy") or []
    except metadata.PackageNotFoundError:
        requirements = []
    listed = (one.split(";") for one in requirements)
    packages = [name.strip() for name, *when in listed if _names(when, extra)]
    if not packages:  # the checkout has changed since it was installed, or was not
        return f"pip install '.[{extra}]' in the checkout of Understudy"
    return "pip install " + " ".join(f"'{package}'" for package in packages)


def _names(conditions: list[str], extra: str) -> bool:
    """Tell whether the conditions of a requirement are that one extra is asked for."""
    return [one.replace('"', "'").replace(" ", "") for one in conditions] == [f"extra=='{extra}'"]
