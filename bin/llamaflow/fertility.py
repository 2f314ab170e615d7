"""How well a tokenizer fits the languages of the data.

Fertility is tokens a word, punctuation being words too (Rust et al. 2021, doi:10.18653/v1/2021.acl-long.243). Where it is high, texts are longer,
training is dearer and the model learns less (Petrov et al. 2023, https://arxiv.org/abs/2305.15425; Ali et al. 2024, doi:10.18653/v1/2024.findings-naacl.247).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from llamaflow.chat import conversation_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WORD = re.compile(r"\w+|[^\w\s]")
WITHOUT_SPACES = {"zh", "yue", "ja", "th", "lo", "km", "my", "bo"}  # there a character counts as a word
RECORDS = 1000  # measured of a split, by chance
CHARACTERS = 1000  # of a text, from its beginning
WORDS = 300  # with fewer, chance has too much of a say
# tokenizers made for a language have 1.1 to 1.9, mBERT 2 and more on languages that it serves badly (Rust et al. 2021, figure 2)
HIGHEST, OF_ENGLISH = 2.5, 2.0
HIGHEST_OF_A_CHARACTER = 1.0  # above it, characters are spelt out in bytes
HIGHEST_UNKNOWN = 0.001


class Fertility:
    """Tokens, words and characters of some records, by language."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._counts: dict[str, Counter[str]] = {}

    def add(self, records: Iterable[Mapping[str, Any]], share: float) -> None:
        """Measure this share of the records, drawn by their ids."""
        some = [(language_of(record), text) for record in records if int(record["id"][:8], 16) < share * 2**32 for text in _texts(record)]
        if not some:
            return
        encoded = self._tokenizer([text for _, text in some], add_special_tokens=False, verbose=False)["input_ids"]
        for (language, text), ids in zip(some, encoded, strict=True):
            counts = self._counts.setdefault(language, Counter())
            words = sum(not letter.isspace() for letter in text) if language in WITHOUT_SPACES else len(WORD.findall(text))
            counts.update(tokens=len(ids), words=words, characters=len(text), unknown=ids.count(self._tokenizer.unk_token_id))

    def by_language(self) -> dict[str, dict[str, Any]]:
        """Of each language: words, tokens_per_word (in WITHOUT_SPACES, tokens a character), characters_per_token, unknown (share), fits (None if it cannot be told), warning or None."""
        made = {
            language: {
                "words": counts["words"],
                "tokens_per_word": round(counts["tokens"] / counts["words"], 3),
                "characters_per_token": round(counts["characters"] / counts["tokens"], 3),
                "unknown": round(counts["unknown"] / counts["tokens"], 6),
            }
            for language, counts in sorted(self._counts.items())
            if counts["words"] and counts["tokens"]
        }
        return {language: fit | _verdict(language, fit, made.get("en")) for language, fit in made.items()}


def language_of(record: Mapping[str, Any]) -> str:
    """Without its region: pt of pt-BR."""
    return (record["meta"]["language"] or "unknown").lower().partition("-")[0]


def _texts(record: Mapping[str, Any]) -> list[str]:
    texts = [message["content"] for message in conversation_of(dict(record)) or [] if message["role"] != "system"] or [record["text"] or ""]
    return [text if len(text) <= CHARACTERS else text[:CHARACTERS].rpartition(" ")[0] or text[:CHARACTERS] for text in texts]


def _verdict(language: str, fit: Mapping[str, Any], english: Mapping[str, Any] | None) -> dict[str, Any]:
    problem = warning(language, fit, english)
    can_be_told = problem or (language != "unknown" and fit["words"] >= WORDS)
    return {"fits": problem is None if can_be_told else None, "warning": problem}


def warning(language: str, fit: Mapping[str, Any], english: Mapping[str, Any] | None) -> str | None:
    """Why the tokenizer fits a language badly; None if it does not, or if there is too little text to tell."""
    if fit["words"] < WORDS:
        return None
    if fit["unknown"] > HIGHEST_UNKNOWN:
        return f"{fit['unknown']:.2%} of its tokens are unknown to the tokenizer: the model cannot read them"
    ratio = fit["tokens_per_word"]
    if language in WITHOUT_SPACES:
        return f"{ratio:.2f} tokens a character: it is spelt out in bytes" if ratio > HIGHEST_OF_A_CHARACTER else None
    if language != "unknown" and ratio > HIGHEST:
        return f"{ratio:.2f} tokens a word, where {HIGHEST} is much"
    is_judged = language != "unknown" and english is not None and english["words"] >= WORDS
    if is_judged and english is not None and ratio > OF_ENGLISH * english["tokens_per_word"]:
        return f"{ratio / english['tokens_per_word']:.1f} times the tokens a word of English"
    return None
