"""Text heat maps: the exact text, honest colours and signs, and nothing that acts."""

import io
import json
import re
import shutil
import subprocess
import sys
import unicodedata
import warnings
from base64 import b64decode
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from figure_checks import check_legible, drawn_texts
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.patches import Rectangle
from PIL import Image
from scored_texts import NASTY, row_of, scores_of
from small_berts import TEXTS, small_bert

import xai_lib as xai
from xai_lib.errors import InputError, OptionError
from xai_lib.explainers.registry import all_methods
from xai_lib.plots import (
    TextHeatmap,
    TextRow,
    attribution_texts,
    sign_note,
    sign_of,
    terminal_line,
    text_figure,
    text_html,
    text_latex,
)
from xai_lib.plots.fonts import drawable
from xai_lib.plots.text.colours import colour, contrast, ink
from xai_lib.plots.text.directions import is_right_to_left
from xai_lib.plots.text.escapes import escaped
from xai_lib.plots.text.latex import MACROS, PACKAGES
from xai_lib.plots.text.lines import Word, visual_order
from xai_lib.plots.text.pieces import pieces
from xai_lib.plots.text.rows import printable
from xai_lib.streams.words import TextScores

pytestmark = pytest.mark.usefixtures("one_thread")
PDFLATEX = shutil.which("pdflatex")
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


class Page(HTMLParser):
    """What a browser makes of HTML: tags, attributes, and the text of each text block."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.blocks, self.units = [], [], [], []
        self._depth = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        found = dict(attrs)
        if tag == "div" and found.get("dir") == "auto":
            self.blocks.append("")
            self._depth = 1
        elif self._depth:
            self._depth += 1
            self.units.append(found)

    def handle_endtag(self, tag):
        self._depth = max(0, self._depth - 1)

    def handle_data(self, data):
        if self._depth:
            self.blocks[-1] += data


# -- rows and pieces


@settings(max_examples=60, deadline=None)
@given(st.lists(ANY_TEXT, min_size=1, max_size=2))
def test_pieces_are_exactly_the_text(texts):
    cut = pieces(row_of(*texts))
    assert ["".join(piece.text for piece in part) for part in cut] == texts
    for part in cut:
        assert all(piece.text.strip() == piece.text for piece in part if piece.units)


def test_special_tokens_and_shared_characters():
    scores = TextScores(
        ("\U0001f600 ok",),
        ("[CLS]", "ð", "Ł", "Ġok", "[SEP]"),
        ((0, 0), (0, 1), (0, 1), (1, 4), (0, 0)),
        (0, 0, 0, 0, 0),
        torch.tensor([0.5, 1.0, -3.0, 2.0, 0.0]),
    )
    ((before, face, gap, ok, after),) = pieces(TextRow(scores))
    assert (before.text, before.special, after.text) == ("[CLS]", True, "[SEP]")
    assert face.text == "\U0001f600" and face.score == -3.0 and "ð: 1, Ł: −3" == face.told
    assert (gap.text, gap.units, ok.text, ok.score) == (" ", (), "ok", 2.0)


def test_the_scale_is_the_largest_score_of_each_row():
    row = row_of("a b c d", values=[2.0, -4.0, 0.0, float("nan")])
    assert row.bound == 4 and row.signed
    assert [row.strength(v) for v in row.values] == [0.5, -1.0, 0.0, 0.0]
    assert row.strength(None) == 0.0
    assert not row_of("a", values=[0.0]).bound and not row_of("a", values=[0.0]).signed


def test_colours_are_signed_and_always_legible():
    assert colour(0) == (255, 255, 255)
    red, blue = colour(0.6), colour(-0.6)
    assert red[0] > red[2] + 60 and blue[2] > blue[0] + 60
    for strength in np.linspace(-1, 1, 401):
        background = colour(strength)
        assert contrast(ink(background), background) >= 4.5
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([], "at least one"),
        ("text", "rows is str"),
        ([3], "holds int"),
        (TextScores(("a",), ("a",), ((0, 1),), (0,), torch.ones(2, 1)), "attribution_texts"),
        (TextScores(("a",), ("a",), ((0, 1),), (0,), torch.ones(2)), "differ in number"),
        (TextScores(("a",), ("a",), ((0, 2),), (0,), torch.ones(1)), "outside"),
        (TextScores(("a",), ("a",), ((0, 1),), (1,), torch.ones(1)), "outside"),
    ],
)
@pytest.mark.parametrize("draw", [text_html, text_latex, text_figure, TextHeatmap])
def test_bad_rows(rows, match, draw):
    with pytest.raises(InputError, match=match):
        draw(rows)


# -- rows of an attribution


@pytest.fixture(scope="module")
def bert():
    return small_bert(classes=3, names=("negative", "neutral", "<b>positive</b>"))


def test_rows_of_an_attribution(bert):
    model, processor = bert
    att = xai.explain(model, processor(list(TEXTS)), "gradient_x_input", targets=[0, 2])
    rows = attribution_texts(att, sample=1)
    assert [row.target for row in rows] == ["negative", "<b>positive</b>"]
    for k, row in enumerate(rows):
        assert row.scores.texts == (TEXTS[1],) and row.title == "gradient_x_input"
        assert torch.equal(row.scores.scores, att.words()[1].scores[k])
        assert row.probability == pytest.approx(float(att.probabilities()[1, [0, 2][k]]))
        assert row.signed and row.note == sign_note("gradient_x_input")
    assert len(attribution_texts(att, sample=None)) == 2 * len(TEXTS)
    tokens = attribution_texts(att, "token", specials=True)[0]
    assert tokens.scores.labels[0] == "[CLS]"
    single = xai.explain(model, processor(list(TEXTS)), "rollout", 1)
    (row,) = attribution_texts(single, reduce="sum", sample=0)
    assert torch.equal(row.scores.scores, single.words("sum")[0].scores)
    assert row.heading.startswith("the same for every class, P(neutral) = ") and not row.signed
    with pytest.raises(OptionError, match="from 0 to 3"):
        attribution_texts(att, sample=4)
    with pytest.raises(OptionError, match="Did you mean 'word'"):
        attribution_texts(att, "words")


# -- signs


def test_every_registered_method_says_what_its_sign_means():
    for name in all_methods():
        note = sign_note(name)
        kind = "Non-negative by construction: " if sign_of(name).non_negative else "Signed: "
        assert note.startswith(kind) and note.endswith(".") and len(note) > 50
    with pytest.raises(OptionError, match="Did you mean 'rollout'"):
        sign_note("rolout")


VARIANTS = {
    "gradient": [{}, {"reduce": "l2"}, {"reduce": "sum"}],
    "smoothgrad": [{"samples": 3}, {"samples": 3, "reduce": "sum"}],
    "gradient_x_input": [{}, {"reduce": "l2sq"}],
    "lrp_alpha_beta": [{}, {"reduce": "sum"}],
    "gradient_sensitivity": [{}, {"seed": "logit"}],
}


@pytest.mark.parametrize("method", sorted(all_methods()))
def test_what_is_said_of_the_sign_is_what_the_method_computes(method):
    """Non-negative methods have no negative score; the signed ones have some, on some model."""
    for options in VARIANTS.get(method, [{}]):
        least = np.inf
        for seed in range(3):
            model, processor = small_bert(classes=3, seed=seed)
            for target in (0, 2):
                att = xai.explain(model, processor(list(TEXTS)), method, target, **options)
                least = min(least, float(att.relevance.min()))
        # Relevance and products of attention are sums: rounding may leave them a hair below zero.
        assert (least >= -1e-12) == sign_of(method, options).non_negative, (options, least)


def test_labels_with_options_have_their_own_sign():
    assert sign_of("gradient").non_negative and not sign_of("gradient:reduce=sum").non_negative
    assert not sign_of("gradient_x_input").non_negative
    assert sign_of("gradient_x_input:reduce=l2sq").non_negative
    assert sign_of("lrp_alpha_beta").non_negative
    assert not sign_of("lrp_alpha_beta", {"reduce": "sum"}).non_negative


# -- HTML


@settings(max_examples=40, deadline=None)
@given(ANY_TEXT, ANY_TEXT)
def test_html_shows_the_text_and_nothing_else(text, title):
    page = Page(text_html(row_of(text, title=title, target=title, note=title)))
    shown = printable(text).replace("\r\n", "\n").replace("\r", "\n")
    assert page.blocks[0].replace("\r\n", "\n").replace("\r", "\n") == shown
    assert set(page.tags) <= {"div", "section", "span", "b", "bdi"}
    assert {name for name, _ in page.attributes} <= {"style", "title", "dir"}


def test_markup_in_a_text_is_text():
    html = text_html(
        {"<i>m</i>": row_of(NASTY, title="<script>", target='" onclick="x', note="<u>")}
    )
    page = Page(html)
    assert page.blocks == [printable(NASTY)]
    assert set(page.tags) == {"div", "section", "span", "b", "bdi"}
    assert not re.search(r"<(script|i|u|img|a|link|iframe)\b", html)
    assert not re.search(r"\b(src|href|on\w+)\s*=\s*\"", html) and "url(" not in html
    assert "\x00" not in html and "\x1b" not in html and "␀" in page.blocks[0]


def test_html_tells_numbers_scale_class_and_sign():
    note = sign_note("integrated_gradients")
    row = row_of(
        "good bad dull", values=[0.5, -2.0, 0.0], title="integrated_gradients",
        target="positive", probability=0.875, note=note,
    )  # fmt: skip
    html = text_html(row)
    page = Page(html)
    assert [unit["title"] for unit in page.units] == ["good: 0.5", "bad: −2", "dull: 0"]
    backgrounds = [re.search(r"background:(#\w+)", unit["style"])[1] for unit in page.units]
    assert backgrounds[2] == "#ffffff" and backgrounds[1] == "#2166ac"
    assert "for “positive”, P = 87.5%" in html and note.replace("'", "&#x27;") in html
    assert "−2 " in html and "> 2<" in html


def test_colours_do_not_depend_on_the_page():
    """Dark mode turns inherited colours round, so that every text and paper has one of its own."""
    html = text_html(row_of("a b", title="m", note="n", chances=(("x", 0.5),)))
    outer = re.match(r'<div style="([^"]*)"', html)[1]
    assert "background:#ffffff" in outer and "color:#1e293b" in outer
    for unit in Page(html).units:
        assert {"background", "color"} <= {p.split(":")[0] for p in unit["style"].split(";")}


def test_right_to_left_text_stays_one_sentence():
    text = "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd good"
    html = text_html(row_of(text, title="m"))
    assert '<div dir="auto" style="' in html and "unicode-bidi:isolate" in html
    inside = html.split('dir="auto"')[1].split("</div>")[0]
    assert "bdi" not in inside and "dir=" not in inside
    assert is_right_to_left(text) and not is_right_to_left("123 good \u05e9")


# -- LaTeX

KNOWN = set(
    re.findall(
        r"\w+",
        """
    begingroup endgroup raggedright setlength parindent textbf par footnotesize hfill
    smallskip allowbreak mbox newline hspace documentclass usepackage IfFileExists begin end
    pagestyle textbackslash textasciicircum textasciitilde textless textgreater textbar
    symbol textasciigrave textexclamdown textquestiondown textsterling textsection
    textparagraph textcopyright textregistered texttrademark textdegree textperiodcentered
    texttimes textdiv textleftarrow textrightarrow guillemotleft guillemotright AE O ss ae o i
    L l OE oe textendash textemdash textquoteleft textquoteright quotesinglbase
    textquotedblleft textquotedblright quotedblbase textbullet textellipsis texteuro
    ensuremath pm cdot leq geq neq approx infty sum alpha beta gamma delta epsilon zeta eta
    theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi omega Gamma Delta
    Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega u r H v c k xaiunit xaimissing
    """,
    )
) | set(re.findall(r"\\([a-zA-Z]+)", MACROS))


def check_latex(source):
    """Fail where LaTeX is not ASCII, braces do not match, or a command is not a known one."""
    assert source.isascii()
    body = "\n".join(line for line in source.split("\n") if not line.startswith("%"))
    depth, place = 0, 0
    while place < len(body):
        character = body[place]
        if character == "\\":
            name = re.match(r"\\([a-zA-Z]+|.)", body[place:], re.S)[1]
            assert name in KNOWN or name in "\\{}$&#%_`'^~=.\"", name
            assert name != "\\", "a line break that text could have put there"
            place += 1 + len(name)
            continue
        assert character not in "$&_^", body[max(0, place - 20) : place + 20]
        depth += (character == "{") - (character == "}")
        assert depth >= 0
        place += 1
    assert depth == 0


def without_definitions(source):
    """Return the LaTeX below the macros, whose parameters and comments are none of a text's."""
    return source.split(MACROS)[1]


@settings(max_examples=60, deadline=None)
@given(ANY_TEXT, ANY_TEXT)
def test_latex_has_no_character_that_acts(text, title):
    source = without_definitions(text_latex(row_of(text, title=title, note=title), title))
    check_latex(source)
    assert not re.search(r"(?<!\\)(#|%(?!\n))", source)


def test_latex_of_nasty_texts():
    source = text_latex(row_of(NASTY, "second", title="a_b", target="<os>"), "T$", document=True)
    check_latex(without_definitions(source).replace("\\end{document}\n", "\\end{document}\n"))
    assert source.count("\\end{document}") == 1 and source.count("\\input") == 0
    assert source.count("\\newline") == 3, "a line break each of the text's own"
    assert r"\xaimissing{1F600}" in source and r"\xaimissing{65E5}" in source
    assert r"\textbackslash{}end\{document\}" in source


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b", r"a\_b"),
        ("50% & #1 $x$", r"50\% \& \#1 \$x\$"),
        ("\\{}", r"\textbackslash{}\{\}"),
        ("--'',,", r"-{}-'{}',{},"),
        ("é ü ő ž", r"\'{e} \"{u} \H{o} \v{z}"),
        ("ﬁ １ ②", "fi 1 2"),
        ("e\u0301", r"\'{e}"),
        ("\u200d\ufe0f", ""),
        ("α → ∞", r"\ensuremath{\alpha} \textrightarrow{} \ensuremath{\infty}"),
        ("a\nb", "a b"),
        ("\u4e2d", r"\xaimissing{4E2D}"),
    ],
)
def test_latex_characters(text, expected):
    assert escaped(text) == expected


def test_spaces_and_long_words_in_latex():
    source = text_latex(row_of("a   b\tc\n\nd"))
    assert r"\mbox{}~~ " in source and r"\hspace*{2em}" in source
    assert source.count("\\newline") == 2
    boxes = re.findall(r"\\xaiunit\{[\d,]+\}\{[\d,]+\}\{(x+)\}", text_latex(row_of("x" * 50)))
    assert boxes == ["x" * 20, "x" * 20, "x" * 10]


@pytest.mark.skipif(PDFLATEX is None, reason="pdflatex is not installed")
def test_latex_compiles(tmp_path):
    """Nasty texts, a fragment in a document, and every character up to the CJK blocks."""
    every = (chr(c) for c in range(1, 0x3000) if unicodedata.category(chr(c)) not in ("Cs", "Cn"))
    letters = "".join(every)
    chunks = " ".join(letters[i : i + 8] for i in range(0, len(letters), 8))
    rows = [row_of(NASTY, "second", title="a_b & c", note="50 %"), row_of(chunks)]
    whole = text_latex(rows, "T$_", document=True)
    (tmp_path / "part.tex").write_text(text_latex(rows[0], "one"), encoding="ascii")
    part = (
        f"\\documentclass{{article}}{PACKAGES}\\begin{{document}}\n\\input{{part}}\\input{{part}}"
    )
    part += "\\end{document}\n"
    for name, source in (("whole", whole), ("outer", part)):
        (tmp_path / f"{name}.tex").write_text(source, encoding="ascii")
        command = [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape"]
        done = subprocess.run([*command, name], cwd=tmp_path, capture_output=True, timeout=120)
        log = done.stdout.decode("latin-1")
        assert done.returncode == 0, log[-2000:]
        assert (tmp_path / f"{name}.pdf").stat().st_size > 1000
        assert "Overfull" not in (tmp_path / f"{name}.log").read_text("latin-1"), "out of the page"


# -- figures


def boxes(figure):
    """Return the coloured boxes of a figure's texts, without those of its scales."""
    (axes,) = figure.axes
    return [p for p in axes.patches if isinstance(p, Rectangle) and p.get_height() > 0.12]


def long_row(seed, **fields):
    return row_of("this film is not bad , but the plot could have been better . " * 5, seed=seed,
                  **fields)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("width", [3.3, 6.9])
def test_figures_are_legible(columns, width):
    rows = [
        row_of(NASTY, title="transformer_attribution", target="p_<os> $x$", probability=0.93,
               note=sign_note("transformer_attribution")),
        long_row(1, title="lrp", target="a class with a very long name indeed", probability=0.01,
                 note=sign_note("lrp"), chances=(("negative", 0.99), ("a long name " * 9, 0.01))),
        row_of("\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 good",
               title="x" * 99),
        row_of("w" * 300, seed=3),
    ]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = text_figure(rows, "A title", width=width, columns=columns)
        check_legible(figure)
        for kind in ("png", "pdf", "svg"):
            figure.savefig(io.BytesIO(), format=kind)


def test_figure_draws_every_word_in_its_colour_and_order():
    row = long_row(0, title="m")
    figure = text_figure(row)
    drawn = boxes(figure)
    assert len(drawn) == len(row.scores)
    for box, score in zip(drawn, row.values, strict=True):
        expected = np.array(colour(row.strength(score))) / 255
        assert np.allclose(box.get_facecolor()[:3], expected)
    lines = [round(box.get_y(), 3) for box in drawn]
    assert lines == sorted(lines) and len(set(lines)) > 2, "it wraps, downwards"
    starts = {y: [b.get_x() for b in drawn if round(b.get_y(), 3) == y] for y in set(lines)}
    for places in starts.values():
        assert places == sorted(places)
        assert places[0] == pytest.approx(min(map(min, starts.values()))), "no space at its start"
    words = {text.get_text() for text in drawn_texts(figure)}
    assert set(row.scores.labels) <= words


def test_line_breaks_and_spaces_of_the_text_are_kept():
    one, broken, blank = (len({round(b.get_y(), 3) for b in boxes(text_figure(row_of(t)))})
                          for t in ("a b", "a\nb", "a\n\nb"))  # fmt: skip
    assert (one, broken, blank) == (1, 2, 2)
    heights = [text_figure(row_of(t)).get_figheight() for t in ("a b", "a\nb", "a\n\nb")]
    assert (
        heights[1] - heights[0] == pytest.approx(heights[2] - heights[1])
        and heights[1] > heights[0]
    )
    near, far = (boxes(text_figure(row_of(t)))[1].get_x() for t in ("a b", "a    b"))
    assert far > near + 0.1
    indented = boxes(text_figure(row_of("    a")))[0].get_x()
    assert indented > boxes(text_figure(row_of("a")))[0].get_x() + 0.1


def test_right_to_left_lines_begin_at_the_right():
    first, second = boxes(text_figure(row_of("\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd")))
    xs = {round(first.get_x(), 3), round(second.get_x(), 3)}
    assert min(xs) > 3, "at the right end of the figure"
    values = row_of("\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd").values
    drawn = {round(b.get_x(), 3): b.get_facecolor()[:3] for b in (first, second)}
    row = row_of("\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd")
    expected = np.array(colour(row.strength(values[0]))) / 255
    assert np.allclose(drawn[max(xs)], expected), "the first word is the rightmost"


@pytest.mark.parametrize(
    ("words", "from_right", "seen"),
    [
        ("a b", False, "a b"),
        # Two pieces of one word are read in its own direction, whatever the text's is.
        ("\u05d0 o|k", True, "o|k \u05d0"),
        ("a \u05d0|\u05d1", False, "a \u05d1|\u05d0"),
        ("\u05d0 not good \u05d1", True, "\u05d1 not good \u05d0"),
        ("a \u05d0 \u05d1 b", False, "a \u05d1 \u05d0 b"),
        ("\u05d0 1|2 3", True, "3 1|2 \u05d0"),
        ("a 1 2 \u05d0", False, "a 1 2 \u05d0"),
        ("\u05d0 .", True, ". \u05d0"),
        ("", True, ""),
    ],
)
def test_words_of_both_directions_stand_as_they_are_read(words, from_right, seen):
    parts = re.findall(r"[^ |]+| ", words)
    found = visual_order([Word(part, 1.0) for part in parts], from_right)
    assert [word.text for word in found] == re.findall(r"[^ |]+| ", seen)


def test_titles_leave_room_before_the_class():
    figure = text_figure(TextRow(scores_of("a"), "transformer_attribution", "negative"))
    figure.canvas.draw()
    title, heading = (
        next(t for t in drawn_texts(figure) if t.get_text().startswith(start)).get_window_extent()
        for start in ("transformer", "for")
    )
    assert heading.x0 - title.x1 > 0.03 * figure.dpi


def test_characters_without_a_glyph_are_squares():
    assert drawable("a\U000f0000b") == "a\u25a1b" and drawable("aé €") == "aé €"
    assert drawable("a\u200db") == "a\u200db" or drawable("a\u200db") == "ab"


def test_a_text_that_no_picture_holds_is_refused():
    with pytest.raises(InputError, match=r"lines, a figure of .* inches"):
        text_figure(row_of("a\n" * 2000))


# -- terminal


def test_terminal_line():
    line = terminal_line(row_of("good bad \x1b[31m\nso", values=[1.0, -1.0, 0.0, 0.5]))
    assert line.plain == "good bad ␛[31m\nso"
    styles = {line.plain[s.start : s.end]: str(s.style) for s in line.spans}
    assert styles == {
        "good": "#ffffff on #b2182b",
        "bad": "#ffffff on #2166ac",
        "so": styles["so"],
    }
    assert styles["so"].startswith("#000000 on #")


# -- the object


def test_heatmap_gives_html_and_a_picture():
    heatmap = TextHeatmap({"rollout": scores_of("good <b>film</b>")}, "T")
    data, metadata = heatmap._repr_mimebundle_()
    assert set(data) == {"text/html", "image/png", "text/plain"}
    image = Image.open(io.BytesIO(b64decode(data["image/png"])))
    shown = metadata["image/png"]
    assert image.width / image.height == pytest.approx(shown["width"] / shown["height"], abs=0.05)
    assert data["text/html"].startswith(heatmap.html())
    # Hidden where styles are obeyed, and all that is left where they are stripped.
    (hidden,) = re.findall(r"<img [^>]*>", data["text/html"])
    assert 'style="display:none"' in hidden and data["image/png"] in hidden
    json.dumps(data)


@pytest.mark.parametrize("suffix", [".html", ".tex", ".png", ".pdf", ".svg"])
def test_heatmap_is_saved_whole(tmp_path, suffix, monkeypatch):
    heatmap = TextHeatmap(row_of(NASTY, title="m"))
    path = heatmap.save(tmp_path / f"map{suffix}")
    content = path.read_bytes()
    start = {".html": b"<!doctype", ".tex": b"\\documentclass", ".png": b"\x89PNG", ".pdf": b"%PDF",
             ".svg": b"<?xml"}[suffix]  # fmt: skip
    assert content.startswith(start)
    if suffix in (".html", ".tex"):
        monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    else:
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: 1 / 0)
    with pytest.raises((OSError, ZeroDivisionError)):
        heatmap.save(tmp_path / f"other{suffix}")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_heatmap_refuses_other_files(tmp_path):
    heatmap = TextHeatmap(scores_of("a"))
    with pytest.raises(OptionError, match=r"suffix '\.gif'; expected \.html"):
        heatmap.save(tmp_path / "x.gif")
    with pytest.raises(InputError, match="does not exist"):
        heatmap.save(tmp_path / "no" / "x.png")


def test_importing_draws_nothing():
    code = (
        "import sys, xai_lib.plots.text.html, xai_lib.plots.text.latex\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_the_sign_of_the_reference_s_integrated_gradients_is_its_own():
    model, processor = small_bert()
    rows = {}
    for compat in (None, "reference"):
        options = {} if compat is None else {"compat": compat}
        att = xai.explain(model, processor("a good film"), "integrated_gradients", **options)
        rows[compat] = attribution_texts(att)[0].note
    assert "add up to the logit" in rows[None]
    assert "add up" not in rows["reference"] and "not times the input" in rows["reference"]
