"""Questions on images with the scores of their answers: VQA v2's JSON and LXMERT's."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from xai_lib.datasets.questions.answers import read_json
from xai_lib.errors import InputError

# How many of the people asked must agree for an answer to be wholly right.
AGREEMENT = 3


class Question(NamedTuple):
    """key: the question's number. image: its number or name, as written. answers: scores."""

    key: str
    image: str
    text: str
    answers: dict[str, float]


def soft_scores(answers: Sequence[str], known: Mapping[str, int]) -> dict[str, float]:
    """Return min(n / 3, 1) for each answer that n people gave and that is `known`.

    The soft accuracy of VQA (Antol et al., ICCV 2015); answers count as they are written. LXMERT's
    files hold 0.3, 0.6, 0.9 and 1 for one, two, three and more: the mean over all choices of nine
    of the ten people.
    """
    counts = Counter(answer for answer in answers if answer in known)
    return {answer: min(count / AGREEMENT, 1.0) for answer, count in counts.items()}


def read_lxmert(path: Path, known: Mapping[str, int]) -> list[Question]:
    """Return the questions of LXMERT's valid.json, minival.json, ... in their order.

    A list of {"question_id", "img_id", "sent", "label": {answer: score}}; other fields are not
    read. Raises InputError, with the record, for missing fields, a question that comes twice,
    answers that are not `known` and scores outside [0, 1].
    """
    records = read_json(path)
    if not isinstance(records, list) or not records:
        raise InputError(
            f"{str(path)!r} holds {_kind(records)}: expected a list of records with question_id, "
            "img_id, sent and label."
        )
    if not any(isinstance(record, dict) and "label" in record for record in records):
        raise InputError(
            f"No record of {str(path)!r} has the answers' scores, 'label': is it the test split? "
            "Expected {answer: score} in each."
        )
    found: dict[str, Question] = {}
    for number, record in enumerate(records):
        question = _question(record, number, path, ("img_id", "sent"))
        place = f"Question {question.key} of {str(path)!r}"
        labels = record.get("label")
        if not isinstance(labels, dict):
            raise InputError(
                f"{place}: its 'label' is {_kind(labels)}; expected {{answer: score}}."
            )
        for answer, score in labels.items():
            if answer not in known:
                raise InputError(
                    f"{place}: its answer {answer!r} is not among the {len(known):,} of the list: "
                    "expected the list that was published with these questions."
                )
            if type(score) not in (int, float) or not 0 <= score <= 1:
                raise InputError(
                    f"{place}: the score of {answer!r} is {score!r}; expected one from 0 to 1."
                )
            question.answers[sys.intern(answer)] = float(score)
        _add(found, question, path)
    return list(found.values())


def read_vqa2(questions: Path, annotations: Path, known: Mapping[str, int]) -> list[Question]:
    """Return the questions of VQA v2 (Goyal et al., CVPR 2017) with their scores, in their order.

    questions: {"questions": [{"question_id", "image_id", "question"}]}. annotations:
    {"annotations": [{"question_id", "image_id", "answers": [{"answer"}]}]}, of ten people. Scores
    are `soft_scores`: answers that are not `known` have none, as people answer freely.

    Raises InputError for a file without questions or annotations, a question without an annotation
    or the reverse, two images of one question, and files no answer of which is known.
    """
    found: dict[str, Question] = {}
    asked = _list(questions, "questions")
    for number, record in enumerate(asked):
        _add(found, _question(record, number, questions, ("image_id", "question")), questions)
    answered = set()
    for number, record in enumerate(_list(annotations, "annotations")):
        key = _field(record, "question_id", number, annotations)
        place = f"The annotation of question {key} in {str(annotations)!r}"
        question = found.get(key)
        if question is None or key in answered:
            wrong = "comes twice" if question else f"has no question in {str(questions)!r}"
            raise InputError(f"{place} {wrong}: expected files of the same split, whole.")
        image = _field(record, "image_id", number, annotations)
        if image != question.image:
            raise InputError(
                f"{place} is of image {image}, the question of image {question.image}: the files "
                "do not belong together."
            )
        answers = record.get("answers")
        if not isinstance(answers, list) or not all(isinstance(a, str) for a in answers):
            raise InputError(
                f"{place}: its 'answers' are {_kind(answers)}; expected a list of "
                "{'answer': TEXT}, one for each person."
            )
        question.answers.update(soft_scores(answers, known))
        answered.add(key)
    if len(answered) < len(found):
        missing = next(key for key in found if key not in answered)
        raise InputError(
            f"{len(found) - len(answered)} of the {len(found)} questions in {str(questions)!r}, "
            f"such as {missing}, have no annotation in {str(annotations)!r}: expected one for each."
        )
    if not any(question.answers for question in found.values()):
        raise InputError(
            f"No answer in {str(annotations)!r} is among the {len(known):,} of the list: expected "
            "the list of answers to these questions."
        )
    return list(found.values())


def _list(path: Path, name: str) -> list:
    """Return the list `name` of a file, with people's answers as plain texts."""
    content = read_json(path, _plain)
    found = content.get(name) if isinstance(content, dict) else None
    if not isinstance(found, list) or not found:
        has = ", ".join(map(repr, content)) if isinstance(content, dict) else _kind(content)
        raise InputError(f"{str(path)!r} has no {name}: it has {has}; expected a list {name!r}.")
    return found


def _plain(record: dict) -> dict | str:
    # Two million of them: as dictionaries they would take a gigabyte.
    answer = record.get("answer")
    return sys.intern(answer) if isinstance(answer, str) else record


def _question(record: object, number: int, path: Path, fields: tuple[str, str]) -> Question:
    key = _field(record, "question_id", number, path)
    image = _field(record, fields[0], number, path)
    text = record.get(fields[1])
    if not isinstance(text, str) or not text.strip():
        raise InputError(
            f"Question {key} of {str(path)!r}: its {fields[1]!r} is {text!r}; expected a text."
        )
    return Question(key, sys.intern(image), text, {})


def _field(record: object, name: str, number: int, path: Path) -> str:
    """Return a number or name of a record as a text."""
    value = record.get(name) if isinstance(record, dict) else None
    if type(value) not in (int, str) or value == "":
        has = repr(value) if isinstance(record, dict) else f"{_kind(record)} instead of a record"
        raise InputError(
            f"Record {number} of {str(path)!r}: its {name!r} is {has}; expected a number or a name."
        )
    return str(value)


def _add(found: dict[str, Question], question: Question, path: Path) -> None:
    if question.key in found:
        raise InputError(f"{str(path)!r} has the question {question.key} twice: expected it once.")
    found[question.key] = question


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", type(None): "nothing"}
    if isinstance(value, list) and not value:
        return "an empty list"
    return kinds.get(type(value), repr(value))
