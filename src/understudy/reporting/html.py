"""The environment in which the templates of pages are rendered."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment() -> Environment:
    """Return an environment that escapes every value, and refuses names without one."""
    return Environment(
        loader=PackageLoader("understudy.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
