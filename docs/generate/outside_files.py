"""Files of the repository outside docs/ as pages of the site, and the links that lead to them."""

import posixpath
import re
from pathlib import Path

PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
"""Page of the repository's root → its name in the site."""
LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)#\s]+)")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json"}
LARGEST = 60_000
"""Characters of a file that a page shows; of a longer one it shows none."""


def pages(root: Path) -> dict[str, str]:
    """Return name → Markdown of the pages of the root, and of all files that pages link to."""
    result = {uri: (root / name).read_text(encoding="utf-8") for name, uri in PAGES.items()}
    for path in sorted(_linked(root)):
        result[_page_of(path)] = _shown(root, path)
    return result


def relinked(markdown: str, uri: str, root: Path) -> str:
    """Return a page with links to files outside docs/ turned to the pages that show them."""
    source = _source(uri)

    def target(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        if uri.startswith(("methods/", "files/")):
            return match[1]
        here = posixpath.dirname(uri)
        return posixpath.relpath(_uri(path, root), here or ".")

    return LINK.sub(target, markdown)


def _source(uri: str) -> str:
    """Return where in the repository the Markdown of a page stands."""
    names = {uri: name for name, uri in PAGES.items()}
    return names.get(uri, f"docs/{uri}")


def _uri(path: str, root: Path) -> str:
    """Return the page of the site that shows a file of the repository."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/").replace(".ipynb", ".md")
    return _page_of(path)


def _page_of(path: str) -> str:
    return f"files/{path.lstrip('.')}.md"


def _linked(root: Path) -> set[str]:
    """Return all files and folders outside docs/ that a page links to."""
    sources = [*PAGES, *(x.relative_to(root).as_posix() for x in (root / "docs").rglob("*.md"))]
    linked = set()
    for source in sources:
        for target in LINK.findall((root / source).read_text(encoding="utf-8")):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
            if not path.startswith("docs/") and path not in PAGES:
                linked.add(path)
    return linked


def _shown(root: Path, path: str) -> str:
    """Return a page that shows a text file, or lists a folder."""
    if (root / path).is_dir():
        names = sorted(x.name for x in (root / path).iterdir() if not x.name.startswith(("_", ".")))
        return f"# {path}\n\nFiles of this folder of the repository:\n\n" + "".join(
            f"- `{name}`\n" for name in names
        )
    text = (root / path).read_text(encoding="utf-8")
    if len(text) > LARGEST:
        return f"# {path}\n\n{len(text):,} characters: see the file in the repository.\n"
    language = LANGUAGES.get(Path(path).suffix, "text")
    return f"# {path}\n\n````{language}\n{text.rstrip()}\n````\n"
