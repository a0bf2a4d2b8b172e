"""`python -m benchmarks.sweep`: ask every family and write reports/sweep.csv.

Each model runs in a process of its own, which a crash or a limit of time ends alone. Rows are
written as they come; `--only` and `--kind` ask a part again and leave the other rows as they are.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import warnings
from dataclasses import fields
from pathlib import Path

import torch
import transformers

from benchmarks.sweep import images, texts
from benchmarks.sweep.asking import METHODS, Answer, answers

SOURCES = {"timm": images, "transformers": texts}
COLUMNS = [field.name for field in fields(Answer)]


def ask(source: str, name: str, pipe) -> None:
    """Build a model and send the rows of its answers, in a process of its own."""
    os.nice(5)
    warnings.simplefilter("ignore")
    home = SOURCES[source]
    try:
        model, inputs = home.build(name)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        pipe.send(vars(Answer(source, name, "", "not run", reason)))
        return
    for row in answers(source, name, model, inputs):
        pipe.send(row)


def rows_of(source: str, name: str, seconds: float) -> list[dict]:
    """Return a model's rows; what it did not get to in time is "fails"."""
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=ask, args=(source, name, sending), daemon=True)
    process.start()
    sending.close()
    rows: list[dict] = []
    try:
        while receiving.poll(seconds):
            rows.append(receiving.recv())
        ended = f"no answer within {seconds:g} seconds"
    except EOFError:
        ended = "the process died"
    process.kill()
    process.join()
    if not (rows and rows[0]["outcome"] == "not run"):
        for method in list(METHODS)[len(rows) :]:
            rows.append(vars(Answer(source, name, method, "fails", ended)))
    return rows


def main() -> None:
    """Ask, write, and print how it came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("reports/sweep.csv"))
    parser.add_argument("--kind", choices=SOURCES, help="one of the two libraries alone")
    parser.add_argument("--only", nargs="*", help="models that are asked again")
    parser.add_argument("--again", action="store_true", help="ask again where not all works")
    parser.add_argument("--seconds", type=float, default=180.0, help="for each answer")
    given = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    table = _read(given.out)
    for source, home in SOURCES.items():
        if given.kind not in (None, source):
            continue
        # Those first that nobody has asked yet.
        for name in sorted(home.families(), key=lambda name: (source, name) in table):
            known = given.again and _all_works(table.get((source, name), []))
            if known or (given.only is not None and name not in given.only):
                continue
            table[source, name] = rows_of(source, name, given.seconds)
            _write(given.out, table)
            found = [row["outcome"] for row in table[source, name]]
            print(source, name, *found, flush=True)
    _summarise(table)


def _all_works(rows: list[dict]) -> bool:
    return bool(rows) and all(row["outcome"] == "works" for row in rows)


def _read(path: Path) -> dict[tuple[str, str], list[dict]]:
    table: dict[tuple[str, str], list[dict]] = {}
    if path.exists():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                table.setdefault((row["source"], row["model"]), []).append(row)
    return table


def _write(path: Path, table: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for key in sorted(table):
            for row in table[key]:
                part = row["disagreement"]
                shown = f"{float(part):.1e}" if part not in (None, "") else ""
                writer.writerow(row | {"disagreement": shown})
    partial.replace(path)


def _summarise(table: dict) -> None:
    rows = [row for found in table.values() for row in found]
    for outcome in ("works", "refused", "fails", "disagrees", "not run"):
        print(f"{outcome}: {sum(row['outcome'] == outcome for row in rows)}")
    bad = [row for row in rows if row["tried"] not in ("", "works")]
    silent = sum(row["outcome"] == "refused" and not row["advice"] for row in rows)
    print(f"refused with advice that fails: {len(bad)}; without advice: {silent}")


if __name__ == "__main__":
    main()
