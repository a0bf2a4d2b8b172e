"""The model card that lies beside the weights: what they are, how good, and how they were made."""

from __future__ import annotations

import json

from xai_lib.checkpoints.finetuning.config import FinetuneConfig


def model_card(config: FinetuneConfig, metrics: dict) -> str:
    """Return README.md as the Hugging Face hub reads it, YAML header first."""
    header = ["---", "library_name: transformers", "pipeline_tag: text-classification"]
    header += ["tags:", "- text-classification", "- xai-lib", "---"]
    rows = [("validation", metrics["validation"])]
    if metrics["test"] is not None:
        rows.append(("test", metrics["test"]))
    table = ["| set | data | n | accuracy | 95 % interval |", "|---|---|---|---|---|"]
    for name, found in rows:
        low, high = found["interval"]
        data = _cell(found["source"])
        table.append(
            f"| {name} | {data} | {found['n']} | {found['accuracy']:.4f} | {low:.4f}-{high:.4f} |"
        )
    curve = ["| step | epoch | validation accuracy |", "|---|---|---|"]
    for row in metrics["curve"]:
        mark = " (kept)" if row["step"] == metrics["best_step"] else ""
        accuracy = row["validation_accuracy"]
        curve.append(f"| {row['step']}{mark} | {row['epoch']:g} | {accuracy:.4f} |")
    cut = ", ".join(f"{count} of {name}" for name, count in metrics["cut"].items())
    limit = metrics["max_length"]
    facts = [
        f"- base: {_cell(config.base)}",
        f"- data: {_cell(config.dataset)}, {metrics['samples']} training samples, classes "
        + ", ".join(_cell(name) for name in metrics["class_names"]),
        f"- texts cut after {limit} tokens: {cut}",
        f"- seed {config.seed}, {config.epochs} epochs, batches of {config.batch_size} texts of "
        f"similar length, rate {config.lr:g}, {metrics['seconds'] / 60:.1f} minutes",
        "- versions: " + ", ".join(f"{k} {v}" for k, v in metrics["versions"].items()),
    ]
    return "\n".join(
        [
            *header,
            f"\n# {metrics['class']} on {_cell(config.dataset)}\n",
            "The checkpoint with the highest validation accuracy; the test set, where there is "
            "one, was scored once at the end.\n",
            *table,
            "",
            *facts,
            "\n## Validation\n",
            *curve,
            "\n## Repeat\n",
            "```sh",
            metrics["command"],
            "```",
            "\nFingerprints of base and data, and all settings: `finetune.json` and "
            "`metrics.json`.\n",
        ]
    )


def _cell(value: object) -> str:
    """Return a name as Markdown code, whatever is in it."""
    text = " ".join(str(value).split()).replace("|", "\\|").replace("`", "'")
    return f"`{text or json.dumps(str(value))}`"
