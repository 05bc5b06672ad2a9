"""The documentation site: ``python -m sphinx -W --keep-going -n docs build/site``.

Pages are Markdown (MyST) and read well on the host of the code, too. Pages with ``{code-cell}`` and the notebooks are
run by the build, as are the scripts of the gallery; an error in one of them fails the build.
"""

from __future__ import annotations

import html
import os
import posixpath
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import tomllib
from docutils import nodes
from sphinx_gallery.directives import imgsgnode

# Keras asks for its backend when it is imported; the reference documents it on this one.
os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# The small networks of the notebooks train no slower on one thread, and much faster where others use the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import malis

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))  # for drawings.py
URLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("urls", {})

project = "malis"
author = "The malis developers"
copyright = "the malis developers"
version = release = malis.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "sphinx-mathjax-offline",
    "sphinxext.opengraph",
]
exclude_patterns = ["gallery", "auto_gallery/*.ipynb", "**/.ipynb_checkpoints"]
templates_path = ["_templates"]
language = "en"

# ---------------------------------------------------------------------------------------------------------- Markdown

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_execution_show_tb = True

# What lies beside `docs` in the repository, and the page of the site that it is.
PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "README.md": "index.md",
}


def _links_out_of_docs(app: Any, page: str, source: list[str]) -> None:
    """Lead links to files beside `docs` to their page, or to the host of the code.

    Pages link to sources by relative paths, as the host of the code wants. Where `pyproject.toml` names no address of
    the sources yet, their text alone remains.
    """
    up = "../" * page.count("/")

    def replace(match: re.Match[str]) -> str:
        text, path, fragment = match["text"], match["path"], match["fragment"] or ""
        target = ROOT / path
        if not target.exists():
            raise FileNotFoundError(f"docs/{page} links to {path}, which does not exist")
        if path in PAGES:
            return f"[{text}]({up}{PAGES[path]}{fragment})"
        if "Source" in URLS:
            return f"[{text}]({URLS['Source']}/{'tree' if target.is_dir() else 'blob'}/main/{path}{fragment})"
        return f"`{text}`" if "`" not in text else text

    outside = re.escape(up + "../")
    source[0] = re.sub(rf"\[(?P<text>[^\]\[]+)\]\({outside}(?P<path>[^)#]+)(?P<fragment>#[^)]*)?\)", replace, source[0])


# --------------------------------------------------------------------------------------------------------- Reference

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's sections name types and shapes
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
nitpick_ignore_regex = [
    # Arguments and options that share their name with a module, and attributes with a class of their own page.
    ("py:obj", "nhood|tree|malis|precision|recall|f_score"),
    # Other packages, whose inventories would have to be fetched.
    ("py:obj", r"(skimage|scipy|dask)\..*"),
]
default_role = (
    "autolink"  # `name` in a docstring is a link where it is a public name, and slanted where it is an argument
)


def _escape_stars(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep the star of ``(K, *shape)``, which would begin slanted text, and is written plain for ``help``."""
    for number, line in enumerate(lines):
        parts = line.split("``")  # every other one is a literal
        parts[::2] = [re.sub(r"(?<![*\\])\*(?=(shape|spatial)\b)", r"\\*", part) for part in parts[::2]]
        lines[number] = "``".join(parts)


def _skip(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples, which their docstrings describe."""
    return True if type(obj).__name__ == "_tuplegetter" else None


# ----------------------------------------------------------------------------------------------------------- Gallery

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "filename_pattern": r"\.py$",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1000,
    "reset_modules": ("matplotlib", "drawings.save_whole_figures"),
    "abort_on_example_error": False,
    "only_warn_on_example_error": False,
    "within_subsection_order": "FileNameSortKey",
    "write_computation_times": False,
}

# -------------------------------------------------------------------------------------------------------------- HTML

html_theme = "pydata_sphinx_theme"
html_title = "malis"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["malis.css"]
html_show_sourcelink = False
html_copy_source = False
html_baseurl = os.environ.get("DOCS_URL", URLS.get("Documentation", ""))
html_theme_options = {
    "logo": {"text": "malis"},
    "header_links_before_dropdown": 6,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
if "Source" in URLS:
    html_theme_options["icon_links"] = [
        {"name": "Source", "url": URLS["Source"], "icon": "fa-solid fa-code-branch", "type": "fontawesome"}
    ]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

ogp_site_url = html_baseurl
ogp_site_name = "malis"
ogp_description_length = 200
# What stands beside a shared link: the first picture of a page, and this one for a page without any.
ogp_image = "_images/comparison.jpg"
ogp_image_alt = "An image of cells, and what networks trained with a per-pixel loss and with MALIS make of it"
ogp_custom_meta_tags = ['<meta name="twitter:card" content="summary_large_image">']


def _describe_shared_link(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Choose the first picture and the first paragraph of a page, also of its docstring, for links to it."""
    if doctree is None:  # the index and the search
        return
    fields = context["meta"] = dict(context["meta"] or {})
    for node in doctree.findall(lambda node: isinstance(node, nodes.image | imgsgnode)):
        name = posixpath.basename(node["uri"])
        picture = f"{app.builder.imagedir}/{name}"
        # Sphinx copies pictures when all pages have been written, the gallery with each page.
        known = name in app.builder.images.values() or Path(app.outdir, picture).exists()
        if known and name.endswith((".png", ".jpg")):
            fields["og:image"] = picture
            fields["og:image:alt"] = node.get("alt") or re.sub("<.*?>", "", context["title"])
            break
    for paragraph in doctree.findall(nodes.paragraph):
        if not isinstance(paragraph.parent, nodes.Admonition):
            text = html.escape(textwrap.shorten(paragraph.astext(), ogp_description_length, placeholder=" ..."))
            fields["og:description"] = text
            context["metatags"] += f'<meta name="description" content="{text}" />\n'
            break


# ------------------------------------------------------------------------------------------------------------- Links

linkcheck_timeout = 20
linkcheck_anchors_ignore_for_url = [r"https://github\.com/.*"]


def setup(app: Any) -> dict[str, bool]:
    """Connect what is written above."""
    app.connect("source-read", _links_out_of_docs)
    app.connect("autodoc-process-docstring", _escape_stars, priority=100)  # before numpydoc
    app.connect("autodoc-skip-member", _skip)
    app.connect("html-page-context", _describe_shared_link, priority=400)  # before sphinxext.opengraph
    return {"parallel_read_safe": True}
