#!/usr/bin/env python3
"""Let a model write questions and answers about texts, each with a quotation that is looked up in the text.

    generate_records.py --records cleaned.parquet [--erase subjects.txt] < settings.json

The settings hold the groups generation, cleaning and personal_data, {"pairs_of": {source: how many pairs a text, at most}} and checkpoint_dir, where answers are kept, so
that none is paid for twice. Records that are no texts pass unchanged, and so do those of people to be erased, which are sent to nobody. Writes generated.parquet, in the order of the records, generate_records.dropped.parquet
(pairs that cannot be used and texts of which nothing came, with the reason) and the receipt generate_records.json, with the tokens that the server
says it used. What a model writes is cleaned as what was read is (with --tokenizer, if lengths have bounds in tokens), since it may know an address that no text holds, or repeat itself.
The server's key comes from the environment: OPENAI_API_KEY. At most a few requests are under way at once, so memory does not grow with the data.
"""

from __future__ import annotations

import argparse
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from llamaflow.cleaning import Rules, fault, filtered, with_texts
from llamaflow.data_params import Generation, PersonalType
from llamaflow.endpoint import Endpoint
from llamaflow.errors import DataError, UsageError, exits_cleanly
from llamaflow.files import short_hash
from llamaflow.kept_answers import KeptAnswers
from llamaflow.questions import NOTHING, SCHEMA, conversation, messages_of, pairs_in
from llamaflow.records import DroppedWriter, ParquetWriter, Record, finished, read_rows
from llamaflow.steps import read_settings, receipt
from llamaflow.subjects import people_of, read_subjects
from llamaflow.textfiles import Unusable

STEP = "generate_records"
TEXTS_BEFORE_GIVING_UP = 20

Pairs = list[Any] | Unusable | None  # None of a record that passes unchanged


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=Path, required=True, help="records of clean_records")
    parser.add_argument("--erase", type=Path, help="a subject_id a line")
    parser.add_argument("--tokenizer", type=Path, help="what counts tokens, of fetch_model, if lengths have bounds in tokens")
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


def run(records: Path, generation: Generation, rules: Rules, erase: Path | None, outdir: Path, settings: Mapping[str, Any]) -> None:
    generated, rejected = outdir / "generated.parquet", outdir / f"{STEP}.dropped.parquet"
    if not (generation.generation_endpoint and generation.generation_model):
        raise UsageError("--generation_endpoint and --generation_model are needed to write questions.")
    with receipt(STEP, settings, outdir) as written:
        written.add_input(records)
        if rules.tokens:
            written.inputs["tokenizer"] = rules.tokens.described["tokenizer_sha256"]
        with (
            Endpoint(generation.generation_endpoint, generation.generation_model, generation.generation_temperature, SCHEMA) as endpoint,
            ParquetWriter(generated) as kept,
            DroppedWriter(rejected, STEP) as dropped,
        ):
            writer = Writer(endpoint, generation, rules, settings["pairs_of"], KeptAnswers(settings.get("checkpoint_dir")), read_subjects(erase))
            counts: Counter[str] = Counter()
            for record, pairs in in_order(read_rows(records), writer.pairs_of, generation.generation_concurrency):
                for made in writer.used(record, pairs, dropped):
                    kept.write(made if made is record else finished(made, rules.cleaning.system_prompt))
                    counts[record["source"]] += 1
            writer.refuse_nonsense()
        written.add_output(generated)
        written.add_output(rejected)
        by_source = {source: {"kept": counts[source], "dropped": dropped.by_source.get(source, {})} for source in sorted({*counts, *dropped.by_source})}
        written.counts = {
            "records": kept.count,
            "texts": writer.texts,
            "usage": {**endpoint.used, "kept_answers": writer.answers.found},
            "dropped": dropped.reasons,
            "sources": by_source,
            "personal_data": {source: dict(sorted(types.items())) for source, types in sorted(writer.personal.items()) if types},
        }


class Writer:
    """Asks for pairs about texts and counts how many answers were understood."""

    def __init__(self, endpoint: Endpoint, generation: Generation, rules: Rules, most: Mapping[str, int], answers: KeptAnswers, erased: frozenset[str]) -> None:
        self.endpoint, self.generation, self.rules, self.most, self.answers, self.erased = endpoint, generation, rules, most, answers, erased
        self.texts = self.understood = 0
        self.personal: dict[str, Counter[PersonalType]] = {}
        self.problem: Unusable | None = None

    def pairs_of(self, record: Record) -> Pairs:
        """Called by several threads."""
        if record["type"] != "text" or not self.erased.isdisjoint(people_of(record["meta"]["subject_id"])):
            return None
        messages = messages_of(record, self.most[record["source"]], self.generation.generation_instructions)
        asked = short_hash([self.endpoint.body, messages], 64)
        try:
            answer = self.answers.find(asked)
            return pairs_in(answer) if answer else self._asked(messages, asked)
        except Unusable as problem:
            return problem

    def _asked(self, messages: Sequence[dict[str, str]], asked: str) -> list[Any]:
        answer = self.endpoint.ask(messages)
        pairs = pairs_in(answer)
        self.answers.keep(asked, answer)
        return pairs

    def used(self, record: Record, pairs: Pairs, dropped: DroppedWriter) -> Iterator[Record]:
        """The record itself if nothing was asked about it, else those of its pairs, as many as were asked for, that can be used."""
        if pairs is None:
            yield record
            return
        self.texts += 1
        location, subject = record["meta"]["location"], record["meta"]["subject_id"]
        if isinstance(pairs, Unusable):
            self.understood += pairs.reason == NOTHING
            self.problem = pairs
            dropped.drop(record["source"], location, pairs.reason, record, by_choice=True)
            if self.texts == TEXTS_BEFORE_GIVING_UP:
                self.refuse_nonsense()
            return
        self.understood += 1
        for pair in pairs[: self.most[record["source"]]]:
            try:
                yield self._cleaned(conversation(pair, record))
            except Unusable as problem:
                dropped.drop(record["source"], location, problem.reason, {"pair": pair, "subject_id": subject}, by_choice=True)

    def _cleaned(self, made: Record) -> Record:
        """A pair without personal data. Raises Unusable for what cleaning would have dropped."""
        redactor = self.rules.redactor()
        record = with_texts(made, redactor)
        self.personal.setdefault(made["source"], Counter()).update(redactor.counts)
        if reason := fault(record, self.rules.cleaning) or filtered(record, self.rules, redactor):
            raise Unusable(reason)
        return record

    def refuse_nonsense(self) -> None:
        """Raise DataError if no answer was understood at all: that is not for the texts' sake, and may cost money."""
        if self.problem and not self.understood:
            raise DataError(
                f"{self.generation.generation_model} wrote no answer that could be understood about the first {self.texts} texts; the last one: "
                f"{self.problem.reason} ({self.problem.detail}). Expected JSON with questions, answers and quotations. Try another --generation_model."
            )


def in_order(records: Iterable[Record], work: Callable[[Record], Pairs], at_once: int) -> Iterator[tuple[Record, Pairs]]:
    """Work at several records at once; results come in the order of the records, and at most twice as many wait."""
    waiting: deque[tuple[Record, Future[Pairs]]] = deque()
    with ThreadPoolExecutor(at_once) as pool:
        try:
            for record in records:
                waiting.append((record, pool.submit(work, record)))
                if len(waiting) > 2 * at_once:
                    first, result = waiting.popleft()
                    yield first, result.result()
            for record, result in waiting:
                yield record, result.result()
        finally:
            pool.shutdown(cancel_futures=True)


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    settings = read_settings()
    run(args.records, Generation.model_validate(settings.get("generation", {})), Rules.of(settings, args.tokenizer), args.erase, args.outdir, settings)


if __name__ == "__main__":
    main()
