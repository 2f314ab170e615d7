"""Names of people in texts, as a model for token classification finds them.

Which words are names is the model's word alone; how much it misses in texts like yours, only a look at them tells.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llamaflow.errors import UsageError
from llamaflow.models import device, load_tokenizer
from llamaflow.words import is_cased

# what models call people: CoNLL-2003, OntoNotes, LeNER-Br, i2b2 2014, and those made to find personal data
PERSON = {
    *("per", "pers", "person", "persona", "personne", "pessoa", "people", "privateperson", "patient", "doctor", "staff", "hcw"),
    *("name", "personname", "nameperson", "fullname", "firstname", "givenname", "middlename", "lastname", "surname", "familyname", "namestudent"),
}
POSITION = re.compile(r"^[BILUES]-|-[BILUES]$")  # of a word within a name
WINDOW, OVERLAP = 512, 128  # tokens; what stands at the edge of a window stands inside the next one
TOKENS_AT_ONCE = 8192
LONGEST = 100  # characters of a name


class NameFinder:
    """Finds the names in texts, several windows of them at once; loaded once, used for many."""

    def __init__(self, directory: Path) -> None:
        self.tokenizer, self.model = load_tokenizer(directory), _load(directory)
        if not self.tokenizer.is_fast:
            raise UsageError("--names_model: its tokenizer does not tell where a token stands in the text; choose a model with a tokenizer.json.")
        self.is_person = _is_person(self.model.config.id2label)
        most = getattr(self.model.config, "max_position_embeddings", None) or WINDOW
        self.window = min(WINDOW, most, self.tokenizer.model_max_length)
        self.padding = self.tokenizer.pad_token_id or 0

    def __call__(self, texts: Sequence[str]) -> list[list[str]]:
        """The names in each text, each once, in the order of their first places."""
        if not texts:
            return []
        options = {"truncation": True, "max_length": self.window, "stride": min(OVERLAP, self.window // 4), "return_overflowing_tokens": True}
        windows: Any = self.tokenizer(list(texts), **options)
        spans: list[list[tuple[int, int]]] = [[] for _ in texts]
        for numbers in _batches(list(map(len, windows["input_ids"]))):
            for number, labels in zip(numbers, self._labels([windows["input_ids"][number] for number in numbers]), strict=True):
                places = windows.encodings[number].offsets
                spans[windows["overflow_to_sample_mapping"][number]] += [place for place, label in zip(places, labels, strict=False) if self.is_person[label]]
        return [list(dict.fromkeys(_names(text, sorted(found)))) for text, found in zip(texts, spans, strict=True)]

    def _labels(self, windows: Sequence[Sequence[int]]) -> list[list[int]]:
        """The likeliest label of each token, and of the padding behind them."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        tokens = pad_sequence([torch.tensor(window) for window in windows], batch_first=True, padding_value=self.padding)
        mask = pad_sequence([torch.ones(len(window), dtype=torch.long) for window in windows], batch_first=True)
        with torch.inference_mode():
            logits = self.model(input_ids=tokens.to(self.model.device), attention_mask=mask.to(self.model.device)).logits
        return list(logits.argmax(-1).tolist())


def _load(directory: Path) -> Any:
    """The model in evaluation mode, from safetensors and without code of its own. Raises UsageError if it classifies no tokens."""
    from safetensors import SafetensorError
    from transformers import AutoModelForTokenClassification, logging

    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what is missing is said below
    try:
        options = {"use_safetensors": True, "trust_remote_code": False, "dtype": "float32", "output_loading_info": True}
        model, loaded = AutoModelForTokenClassification.from_pretrained(directory, **options)
    except (ValueError, OSError, KeyError, ImportError, SafetensorError) as error:
        raise UsageError(f"--names_model: it cannot be loaded as a model for token classification: {str(error).splitlines()[0]}") from error
    finally:
        logging.set_verbosity(verbosity)
    if missing := sorted(loaded["missing_keys"]):
        raise UsageError(f"--names_model: its files have no {missing[0]}, so it was not trained to find names. Choose a model for token classification (NER).")
    return model.eval().to(device())


def _is_person(labels: Mapping[int, str]) -> list[bool]:
    """By number of the label. Raises UsageError if none means people."""
    found = [re.sub(r"[^a-z]", "", POSITION.sub("", labels[number]).lower()) in PERSON for number in range(len(labels))]
    if not any(found):
        raise UsageError(f"--names_model: none of its labels means people: {', '.join(labels.values())}. Choose a model with a label such as PER or PERSON.")
    return found


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Numbers of windows, the longest first, so that those of a batch need little padding."""
    order = sorted((number for number, length in enumerate(lengths) if length), key=lambda number: (-lengths[number], number))
    start = 0
    while start < len(order):
        end = start + max(1, TOKENS_AT_ONCE // lengths[order[start]])
        yield order[start:end]
        start = end


def _names(text: str, tokens: Sequence[tuple[int, int]]) -> Iterator[str]:
    """What tokens, in order, name: whole words, and what only a space parts is one name. A single letter is none, and of what is too long every word is one."""
    spans: list[tuple[int, int]] = []
    for start, end in (_whole_words(text, *token) for token in tokens):
        if spans and text[spans[-1][1] : start] in ("", " "):
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((start, end))
    names = (" ".join(_bare(text[start:end]).split()) for start, end in spans)
    parts = (part for name in names for part in ([name] if len(name) <= LONGEST else name.split()))
    yield from (part for part in parts if 1 < len(part) <= LONGEST)


def _bare(name: str) -> str:
    """Without the marks and spaces around it."""
    return name.strip("".join(character for character in name if unicodedata.category(character)[0] in "PSZC"))


def _whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    """Without the space that some tokens begin with, but with what a model missed of a word, in scripts with capitals: they part words by spaces."""
    start += len(text[start:end]) - len(text[start:end].lstrip())
    while max(0, end - LONGEST) < start < end and is_cased(text[start]) and is_cased(text[start - 1]):
        start -= 1
    while start < end < min(len(text), start + LONGEST) and is_cased(text[end - 1]) and is_cased(text[end]):
        end += 1
    return start, end
