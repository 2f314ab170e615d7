#!/usr/bin/env python3
"""Write the model card: what the model is, what it was made from, how good it is, and what it cannot do.

write_model_card.py --model model.json --trial <trial_id>/ --parity parity.json --dataset dataset.json
    --leaderboard leaderboard.json --winner winner.json < {"export": {...}}  ->  README.md  write_model_card.json

The metadata follow the Hugging Face Hub's model card specification, results included (model-index).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from llamaflow.cards import main_languages
from llamaflow.errors import exits_cleanly
from llamaflow.files import read_json, write_text
from llamaflow.params import Export
from llamaflow.steps import read_settings, receipt
from llamaflow.trials import REWARD, Trial


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "trial", "parity", "dataset", "leaderboard", "winner"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


def card(facts: dict[str, Any], settings: Export) -> str:
    """The whole card as Markdown with YAML metadata."""
    header = yaml.safe_dump(metadata(facts, settings), sort_keys=False, allow_unicode=True)
    sections = [introduction(facts, settings), quality(facts), training(facts), data(facts), limits(facts), usage(facts, settings)]
    return f"---\n{header}---\n\n" + "\n\n".join(sections) + "\n"


def metadata(facts: dict[str, Any], settings: Export) -> dict[str, Any]:
    model, dataset = facts["model"], facts["dataset"]
    results = [{"type": name, "value": round(metric["value"], 4)} for name, metric in facts["tuned"].items()]
    task = "text-classification" if facts["head"] else "text-generation"
    found: dict[str, Any] = {
        "base_model": model["source"] if model["kind"] == "hub" else None,
        "library_name": "peft" if needs_its_adapter(facts) else "transformers",
        "pipeline_tag": task,
        "license": settings.license or model.get("license"),
        "language": main_languages(dataset.get("languages", {})) or None,
        "tags": ["llamaflow", facts["trial"].technique, *([facts["trial"].stage] if facts["trial"].stage != "sft" else [])],
        "model-index": [
            {
                "name": settings.release_name,
                "results": [{"task": {"type": task}, "dataset": {"name": "held-out test split", "type": "private"}, "metrics": results}],
            }
        ],
    }
    return {name: value for name, value in found.items() if value is not None}


def needs_its_adapter(facts: dict[str, Any]) -> bool:
    """Virtual tokens could not be merged: the release is base/ and adapter/."""
    return bool(facts["trial"].traits.trains == "prompt")


def introduction(facts: dict[str, Any], settings: Export) -> str:
    trial, model = facts["trial"], facts["model"]
    origin = model["source"] + (f" at revision {model['revision']}" if model["revision"] else "")
    stage = "" if trial.stage == "sft" else f" ({trial.stage})"
    made = f"{model['id']} ({origin}), fine-tuned with {trial.technique}{stage} by LlamaFlow."
    if model["kind"] == "scratch":
        made = f"Trained from scratch{stage} by LlamaFlow, in the architecture of {model['id']} ({origin}), with a tokenizer of its own."
    return f"# {settings.release_name}\n\n{made}\n\n{facts['winner']['reason']}"


def quality(facts: dict[str, Any]) -> str:
    lines = [
        "## Quality",
        "",
        "Measured on held-out records that no training saw; 95 % bootstrap intervals in brackets.",
        "",
        "| measure | base | this model | records |",
        "| --- | --- | --- | --- |",
    ]
    for name, tuned in facts["tuned"].items():
        lines.append(f"| {name} | {_with_interval(facts['base'].get(name))} | {_with_interval(tuned)} | {tuned['n']} |")
    return "\n".join([*lines, "", *_remarks(facts)])


def _remarks(facts: dict[str, Any]) -> list[str]:
    parity, head = facts["parity"], facts["head"]
    released = "The released base and adapter answer as when they were measured" if needs_its_adapter(facts) else "The merged weights answer as the adapter did"
    same = f"{parity['greedy_agreement']:.2%} of {'labels' if head else 'next tokens'} are the same, and the " if head != REWARD else "the "
    remarks = [
        f"{released}: {same}largest {'output' if head else 'logit'} difference is {parity['relative_difference']:.2%} of the {'outputs' if head else 'logits'}' spread."
    ]
    if head:
        how = "the likelihood of both answers" if head == REWARD else "the answers that it writes"
        remarks += ["", f"The base has no such output: it was measured by {how}."]
    return remarks


def _with_interval(metric: dict[str, float] | None) -> str:
    return f"{metric['value']:.3f} [{metric['ci_low']:.3f}, {metric['ci_high']:.3f}]" if metric else "\u2013"


def training(facts: dict[str, Any]) -> str:
    rows = [f"| {name} | {value} |" for name, value in facts["trial"].hyperparameters.items()]
    return "\n".join(["## Training", "", "`trial.json` beside this card reproduces it.", "", "| hyperparameter | value |", "| --- | --- |", *rows])


def data(facts: dict[str, Any]) -> str:
    dataset = facts["dataset"]
    lines = ["## Data", "", f"Digest: `{dataset['sha256']}`", "", "| source | licence | train | validation | test |", "| --- | --- | --- | --- | --- |"]
    for name, source in dataset["sources"].items():
        lines.append(
            f"| {name} | {source.get('license') or 'not given'} | " + " | ".join(str(source.get(split, 0)) for split in ("train", "validation", "test")) + " |"
        )
    return "\n".join([*lines, "", _personal_data(dataset.get("personal_data"))])


def _personal_data(personal: dict[str, Any] | None) -> str:
    """Counts, never values."""
    found = Counter[str]()
    for counts in (personal or {"found": {}})["found"].values():
        found.update(counts)
    listed = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in found.most_common())
    rule = f" (`personal_data: {personal['action']}`)" if personal else ""
    return f"Personal data found by pattern and checksum{rule}: {listed or 'none'}. Names of people were not looked for."


def limits(facts: dict[str, Any]) -> str:
    inherited = ["- It inherits the limits and the licence terms of its base model."] if facts["model"]["kind"] != "scratch" else []
    return "\n".join(
        [
            "## Limits",
            "",
            f"- The figures hold for questions like those of the test split ({facts['dataset']['splits']['test']} records), asked in the same form. Other uses were not measured.",
            "- The model can state wrong facts with confidence. Check answers that matter against their source.",
            "- Safety, bias and the presence of personal data in answers were not evaluated.",
            *inherited,
        ]
    )


def usage(facts: dict[str, Any], settings: Export) -> str:
    place, both = f"path/to/{settings.release_name}", needs_its_adapter(facts)
    code = _head_in_use(facts, place) if facts["head"] else _adapter_in_use(facts, place) if both else _text_in_use(facts, place)
    remark = "The model is `base/` and `adapter/` together; `base/` alone is the base model as it was.\n\n" if both else ""
    return f"## Use\n\n{remark}```python\n{code}\n```"


def _text_in_use(facts: dict[str, Any], place: str) -> str:
    return f"""from transformers import pipeline

generate = pipeline("text-generation", model="{place}")
{_question(facts)}"""


def _adapter_in_use(facts: dict[str, Any], place: str) -> str:
    return f"""from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{place}/base"), "{place}/adapter")
generate = pipeline("text-generation", model=model, tokenizer=AutoTokenizer.from_pretrained("{place}/base"))
{_question(facts)}"""


def _question(facts: dict[str, Any]) -> str:
    if facts["model"]["chat_template"]:
        return 'print(generate([{"role": "user", "content": "..."}], max_new_tokens=128)[0]["generated_text"][-1]["content"])'
    return 'print(generate("...", max_new_tokens=128)[0]["generated_text"])'


def _head_in_use(facts: dict[str, Any], place: str) -> str:
    messages, ending, shown = '{"role": "user", "content": "..."}', ", add_generation_prompt=True", "model.config.id2label[int(outputs.argmax())]"
    if facts["head"] == REWARD:
        messages, ending, shown = messages + ', {"role": "assistant", "content": "..."}', "", "float(outputs[0])"
    return f"""import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{place}")
model = AutoModelForSequenceClassification.from_pretrained("{place}")
text = tokenizer.apply_chat_template([{messages}], tokenize=False{ending})
with torch.no_grad():
    outputs = model(**tokenizer(text, return_tensors="pt", truncation=True, add_special_tokens=False)).logits[0]
print({shown})"""


def facts_from(args: argparse.Namespace) -> dict[str, Any]:
    facts = {name: read_json(getattr(args, name)) for name in ("model", "parity", "dataset", "leaderboard", "winner")}
    rows = {row["id"]: row for row in facts["leaderboard"]["rows"]}
    trial = Trial.model_validate(read_json(args.trial / "trial.json"))
    return facts | {"trial": trial, "head": trial.head, "tuned": rows[trial.trial_id]["metrics"], "base": rows[f"base-{trial.model['id']}"]["metrics"]}


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    given = read_settings()
    with receipt("write_model_card", given, args.outdir) as written:
        write_text(args.outdir / "README.md", card(facts_from(args), Export.model_validate(given.get("export", {}))))
        written.add_output(args.outdir / "README.md")


if __name__ == "__main__":
    main()
