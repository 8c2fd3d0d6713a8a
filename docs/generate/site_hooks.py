"""What MkDocs calls while it builds the site: pages that exist nowhere as files, and their links.

The home page is README.md. Pages of the repository's root and files that pages link to become
pages of the site, the card of each method comes from its file, the command line from its help,
tables from results/*.json, and notebooks are executed and rendered.
"""

import re
from pathlib import Path

import method_cards
import notebook_pages
import option_tables
import outside_files
import result_tables
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from page_text import FENCE, with_includes

ROOT = Path(__file__).parents[2]
TABLE = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
SHIM = "https://unpkg.com/iframe-worker/shim"
LIST = re.compile(r"(?m)^(?![-|#> ])(\S.*)\n(?=- )")
"""A line of a paragraph before a list, which Markdown wants apart."""
SHORT_CODE = re.compile(r"(?<!</span>)<code>([^<\n]{1,32})</code>")
CELL = re.compile(r"<td((?: style=\"[^\"]*\")?)>(.*?)</td>", re.DOTALL)
TAG = re.compile(r"<[^>]+>")
CODE = re.compile(r"<code.*?</code>", re.DOTALL)
FLAG = re.compile(r"(?<![\w.\"=-])--[a-z][\w.-]*")
"""A flag in code, but not within the attributes of an element."""
LONG_CELL = 24
"""Characters from which the text of a cell needs room."""
TABLES = {"methods_measured": result_tables.methods_measured}
"""Name in a page, `<!-- generated: NAME -->` → what writes the table that takes its place."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the card of every method in the navigation, behind the page of all."""
    (methods,) = (entry for entry in config.nav or [] if "Methods" in entry)
    methods["Methods"] = ["methods/index.md", *(f"methods/{x}.md" for x in method_cards.names())]
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    notebooks = [file for file in files if file.src_uri.endswith(".ipynb")]
    paths = tuple(Path(file.abs_src_path or "") for file in notebooks)
    for file, page in zip(notebooks, notebook_pages.rendered(paths), strict=True):
        files.remove(file)
        uri = file.src_uri.replace(".ipynb", ".md")
        files.append(File.generated(config, uri, content=page))
    pages = {**method_cards.pages(), "command_line.md": option_tables.page()}
    for uri, content in {**pages, **outside_files.pages(ROOT)}.items():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill the tables of a page, and lead its links to pages of the site."""
    text = with_includes(TABLE.sub(lambda match: TABLES[match[1]](), markdown))
    parts = re.split(f"({FENCE.pattern})", text, flags=FENCE.flags)
    parts[::2] = [LIST.sub(r"\1\n\n", part) for part in parts[::2]]  # not within code
    return outside_files.relinked("".join(parts), page.file.src_uri, ROOT)


def on_page_content(html: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Mark short code and flags, which stay in one line, and long cells, which stay wide enough."""
    html = CODE.sub(_marked_flags, SHORT_CODE.sub(r'<code class="short">\1</code>', html))
    return CELL.sub(_marked_cell, html)


def _marked_flags(code: re.Match[str]) -> str:
    return FLAG.sub(r'<span class="flag">\g<0></span>', code[0])


def _marked_cell(cell: re.Match[str]) -> str:
    marked = ' class="long"' if len(TAG.sub("", cell[2])) > LONG_CELL else ""
    return f"<td{cell[1]}{marked}>{cell[2]}</td>"


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Name our own script for search without a server, where the theme names one of a network."""
    return output.replace(SHIM, page.url.count("/") * "../" + "site_worker.js")


def on_post_template(output: str, *, template_name: str, config: MkDocsConfig) -> str:
    """Do the same for pages that are no Markdown, such as 404.html."""
    return output.replace(SHIM, "site_worker.js")
