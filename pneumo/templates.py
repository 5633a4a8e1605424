"""HTML templates of the two pages. Jinja2 underneath, which escapes every value."""

from importlib import resources

from jinja2 import Environment, StrictUndefined, Template


def load(package: str, name: str) -> Template:
    """The template ``name`` that lies in a package; a value that is not given is an error."""
    text = resources.files(package).joinpath(name).read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(text)
