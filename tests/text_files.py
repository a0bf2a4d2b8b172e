"""Small text data sets in the formats in which the originals are published."""

import copy
import json
import pickle

MOVIES = {
    "negR_1.txt": "the plot is thin .\ni was bored by the first scene .",
    "posR_2.txt": "what a wonderful story !\nthe cast is great .\nsee it again .",
    "negR_3.txt": "two hours of noise .",
}
# Annotation, label and evidence groups of (start, end) words.
LABELLED = {
    "negR_1.txt": ("NEG", [[(1, 4)], [(6, 8), (4, 6)]]),
    "posR_2.txt": ("POS", [[(2, 4)], [(6, 9)]]),
    "negR_3.txt": ("NEG", []),
}

GROUPS = ("comp.graphics", "sci.med", "talk.politics.misc")
POST = (
    "From: someone@example.org (Some One)\nSubject: Re: doses\nLines: 12\n\n"
    "In article <1@example.org> you write:\n> how much is too much ?\n"
    "It depends on the {} .\nAsk your doctor , naïve or not .\n--\nSome One, example dot org\n"
)


def annotation(key, label="NEG", groups=(), docid=None, **more):
    """Return a line of an ERASER split as a dictionary."""
    evidences = [
        [
            {
                "docid": docid or key,
                "start_token": start,
                "end_token": end,
                "start_sentence": -1,
                "end_sentence": -1,
                "text": "",
            }
            for start, end in group
        ]
        for group in groups
    ]
    line = {
        "annotation_id": key,
        "classification": label,
        "evidences": evidences,
        "query": "What is the sentiment of this review?",
        "query_type": None,
        "docids": None,
    }
    return line | more


def write_jsonl(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def write_eraser(folder, documents=None, splits=None, form="docs"):
    """Write ERASER's layout; form: "docs" (a folder), "jsonl" (texts) or "tokens" (lists)."""
    folder.mkdir(parents=True, exist_ok=True)
    documents = MOVIES if documents is None else documents
    if form == "docs":
        (folder / "docs").mkdir(exist_ok=True)
        for name, text in documents.items():
            (folder / "docs" / name).write_text(text, encoding="utf-8")
    else:
        split = form == "tokens"
        lines = [
            {"docid": k, "document": [s.split() for s in text.split("\n")] if split else text}
            for k, text in documents.items()
        ]
        write_jsonl(folder / "docs.jsonl", lines)
    if splits is None:
        lines = [annotation(key, label, groups) for key, (label, groups) in LABELLED.items()]
        splits = {"train": lines[:1], "val": lines[1:2], "test": lines}
    for split, lines in splits.items():
        write_jsonl(folder / f"{split}.jsonl", lines)
    return folder


def write_newsgroups(folder, groups=GROUPS, posts=3):
    """Write the "bydate" folders of 20 Newsgroups, in latin-1; one post has only a header."""
    for split in ("train", "test"):
        for number, group in enumerate(groups):
            where = folder / f"20news-bydate-{split}" / group
            where.mkdir(parents=True)
            for post in range(posts):
                text = POST.format(f"{split} {group} {post}")
                (where / str(9 + post + 100 * number)).write_bytes(text.encode("latin-1"))
    empty = folder / "20news-bydate-test" / groups[-1] / "99999"
    empty.write_text("From: nobody\n\n> all of it is quoted\n")
    return folder


def write_imdb(folder, each=2):
    """Write aclImdb's folders, the unlabelled reviews too."""
    for split in ("train", "test"):
        for label, rating in (("neg", 2), ("pos", 9), ("unsup", 0)):
            where = folder / "aclImdb" / split / label
            where.mkdir(parents=True)
            for number in range(each):
                text = f"A {label} film .<br /><br />Number {number} , naïve ."
                (where / f"{number}_{rating}.txt").write_text(text, encoding="utf-8")
    return folder


def write_lines(path, *lines, end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


def copied(data):
    """Return a copy as another process gets it; that it can be pickled is checked."""
    assert pickle.dumps(data)
    return copy.deepcopy(data)
