"""The front page of a report: its pages, figures and tables, as they lie in the folder."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

import nbformat
from jinja2 import Environment

from xai_lib.files.writing import write_text

# Where an executed notebook says how its run went: seconds, and one line of error or null.
OUTCOME_KEY = "xai_report"
LONGEST_TABLE = 24
TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Report: {{ profile }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff; }
section { border-top: 1px solid #ccc; padding: 0.5rem 0 1rem; }
.failed { color: #a00; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; width: 13rem; font-size: 0.8rem; overflow-wrap: anywhere; }
img { width: 100%; height: 9rem; object-fit: contain; border: 1px solid #ddd; }
</style>
</head>
<body>
<h1>Report: {{ profile }} profile</h1>
{% for page in pages %}
<section>
<h2><a href="{{ page.name | urlencode }}.html">{{ page.title }}</a></h2>
<p>{{ page.name }}, {{ "%.1f" | format(page.seconds) }} s,
{% if page.error %}<b class="failed">failed, the page ends there: {{ page.error }}</b>
{% else %}complete{% endif %};
<a href="{{ page.name | urlencode }}.ipynb">executed notebook</a></p>
{% if page.figures %}<div class="figures">
{% for name in page.figures %}<figure>
<a href="figures/{{ name | urlencode }}.png"><img loading="lazy" alt="{{ name }}"
src="figures/{{ name | urlencode }}.png"></a>
<figcaption>{{ name }} (<a href="figures/{{ name | urlencode }}.pdf">PDF</a>)</figcaption>
</figure>{% endfor %}
</div>{% endif %}
{% if page.tables %}<ul>
{% for name in page.tables %}<li>{{ name }}:
{% for kind, label in [("csv", "CSV"), ("md", "Markdown"), ("tex", "LaTeX")] -%}
<a href="tables/{{ name | urlencode }}.{{ kind }}">{{ label }}</a>
{% endfor %}</li>{% endfor %}
</ul>{% endif %}
</section>
{% else %}<p>No notebook has been rendered yet.</p>
{% endfor %}
</body>
</html>
"""


def write_index(folder: Path, profile: str) -> Path:
    """Write `folder`/index.html over the executed notebooks that lie in it, and return its path."""
    pages = [_page(path) for path in sorted(folder.glob("[!.]*.ipynb"))]
    environment = Environment(autoescape=True, trim_blocks=True)
    text = environment.from_string(TEMPLATE).render(profile=profile, pages=pages)
    path = folder / "index.html"
    write_text(path, text)
    return path


def write_readme(folder: Path, profile: str) -> Path:
    """Write `folder`/README.md: what a visitor of the repository sees of the figures and tables.

    It names no times and no machine, so that equal results give an equal page.
    """
    lines = [
        f"# Report: {profile} profile",
        "",
        f"Figures and tables that `xai report --profile {profile}` wrote; the notebooks' pages are "
        "beside them once you run it. platform.json says on what they were computed: there the "
        "tables come out the same, elsewhere within their intervals.",
    ]
    for page in map(_page, sorted(folder.glob("[!.]*.ipynb"))):
        lines += ["", f"## {escape(page['title'])}", ""]
        lines += [f"![{name}](figures/{name}.png)\n" for name in page["figures"]]
        for name in page["tables"]:
            text = (folder / "tables" / f"{name}.md").read_text(encoding="utf-8").strip()
            short = len(text.splitlines()) <= LONGEST_TABLE
            lines += [text if short else f"Long: [{name}](tables/{name}.md)", ""]
    path = folder / "README.md"
    write_text(path, "\n".join(lines).rstrip() + "\n")
    return path


def notebook_title(notebook: nbformat.NotebookNode, default: str) -> str:
    """Return the text of the notebook's first Markdown heading, or `default`."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = re.search(r"^#\s+(.+?)\s*$", cell.source, re.MULTILINE)
            if heading:
                return re.sub(r"[*`]", "", heading[1])
    return default


def _page(path: Path) -> dict:
    notebook = nbformat.read(path, as_version=4)
    outcome = notebook.metadata.get(OUTCOME_KEY, {})
    name = path.stem
    return {
        "name": name,
        "title": notebook_title(notebook, name),
        "seconds": outcome.get("seconds", 0.0),
        "error": outcome.get("error", "not rendered by this command"),
        "figures": sorted(file.stem for file in path.parent.glob(f"figures/{name}-*.png")),
        "tables": sorted(file.stem for file in path.parent.glob(f"tables/{name}-*.csv")),
    }
