"""Notebook to one HTML file that needs nothing else: no script, font or formula from a network."""

from __future__ import annotations

from copy import deepcopy
from html import escape

from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

# Browsers render MathML by themselves, so MathJax, RequireJS and mermaid all go; so does the widget
# manager, which would come from a CDN.
TEMPLATE = """
{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_css -%}
<style>
main { max-width: 62rem; margin: 0 auto; }
math[display="block"] { margin: 0.8em 0; font-size: 115%; }
</style>
{%- endblock -%}
{%- block data_latex -%}
<div class="jp-RenderedHTMLCommon jp-RenderedHTML jp-OutputArea-output">
{{ output.data['text/latex'] | latex2html }}
</div>
{%- endblock -%}
"""


def notebook_html(notebook: NotebookNode, title: str) -> str:
    """Return `notebook` as an HTML page that works offline.

    Formulas become MathML, pictures stay inside the page, and a widget is replaced by the static
    output that it displayed next to itself (nothing, where it displayed none).
    """
    notebook = without_widgets(notebook)
    notebook.metadata["title"] = title
    exporter = _OfflineExporter(raw_template=TEMPLATE, embed_images=True)
    page, _ = exporter.from_notebook_node(notebook)
    return page


def without_widgets(notebook: NotebookNode) -> NotebookNode:
    """Return a copy of `notebook` whose outputs are what a reader without a kernel can see."""
    notebook = deepcopy(notebook)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        kept = []
        for output in cell.get("outputs", []):
            if output.get("data", {}).pop(WIDGET_VIEW, None) is None:
                kept.append(output)
            elif set(output.data) - {"text/plain"}:
                # What is left of a bare widget, "VBox(children=...)", tells nobody anything.
                kept.append(output)
        if "outputs" in cell:
            cell.outputs = kept
    return notebook


def mathml(latex: str, display: str = "inline") -> str:
    """Return `latex` as MathML, or as its own source where a command has no translation."""
    try:
        result = convert(latex.strip(), display=display)
    except Exception:  # the converter's errors share no base, and the page must not fail on one
        result = "\\"
    return f"<code>{escape(latex)}</code>" if "\\" in result else result


def _latex_output(text: str) -> str:
    return mathml(text.strip().strip("$"), "block")


class _MathRenderer(IPythonRenderer):
    def inline_math(self, body: str) -> str:
        return mathml(body)

    def block_math(self, body: str) -> str:
        return mathml(body, "block")

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")


class _OfflineExporter(HTMLExporter):
    def default_filters(self):
        yield from super().default_filters()
        yield "latex2html", _latex_output

    @pass_context
    def markdown2html(self, context, source):
        renderer = _MathRenderer(
            escape=False,
            attachments=context.get("cell", {}).get("attachments", {}),
            embed_images=True,
            path=context.get("resources", {}).get("metadata", {}).get("path", ""),
            anchor_link_text=self.anchor_link_text,
        )
        return MarkdownWithMath(renderer=renderer).render(source)
