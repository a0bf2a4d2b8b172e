"""Sentiment trees as the Stanford Sentiment Treebank writes them: "(3 (2 It) (4 works))"."""

from __future__ import annotations

import re

from xai_lib.errors import InputError

# What the Penn Treebank writes for characters that have a meaning in its own notation.
_ESCAPED = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}
_BACKSLASH = re.compile(r"\\([/*])")
_PIECE = re.compile(r"\(\s*([^\s()]+)|([()])|([^\s()]+)")


def read_tree(line: str, place: str) -> tuple[str, str]:
    """Return the words of a tree, with spaces between them, and its root's label.

    Brackets, slashes and stars that the treebank escapes (-LRB-, \\/, \\*) are unescaped. Raises
    InputError, naming `place`, for parentheses that do not close, nodes without label or words
    beside a tree.
    """
    words, depth, root = [], 0, None
    position = 0
    for found in _PIECE.finditer(line):
        label, bracket, word = found.groups()
        opens = label is not None or bracket == "("
        if depth == 0 and (root is not None or not opens):
            break
        position = found.end()
        if label is not None:
            depth += 1
            root = label if root is None else root
            if not label.isdigit():
                raise InputError(
                    f"{place}: the label {label!r} of a node of the tree is no number."
                )
        elif bracket == "(":
            raise InputError(f"{place}: a node of the tree has no label: expected '(2 word)'.")
        elif bracket == ")":
            depth -= 1
        else:
            words.append(_ESCAPED.get(word, _BACKSLASH.sub(r"\1", word)))
    if depth > 0 or root is None:
        raise InputError(
            f"{place} is no tree, or a truncated one: {depth} of its parentheses do not close. "
            "Expected '(3 (2 It) (4 works))'."
        )
    if line[position:].strip():
        raise InputError(f"{place} has {line[position:].strip()[:40]!r} after its tree.")
    if not words:
        raise InputError(f"{place}: the tree has no words.")
    return " ".join(words), root
