"""How many tokens texts have, by the tokenizer.json of a model: data preparation needs neither torch nor transformers for that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from llamaflow.errors import UsageError
from llamaflow.files import read_json
from llamaflow.portions import portions

FILE = "tokenizer.json"
CHARACTERS_AT_ONCE = 500_000  # an encoded text takes some 30 times its length in memory


class TokenCounter:
    """Counts the tokens of records, without the special ones that a tokenizer would put around a text."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            self._tokenizer = Tokenizer.from_file(str(directory / FILE))
        except Exception as error:  # the package knows no narrower one
            raise UsageError(f"its {FILE} cannot be read; the file may be damaged ({error})") from error
        # a tokenizer that was saved after a training may cut texts, or fill them up
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    @property
    def described(self) -> dict[str, Any]:
        """What model.json says of the tokenizer."""
        return dict(read_json(self.directory / "model.json"))

    @property
    def vocabulary(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def __call__(self, records: Iterable[list[str]]) -> Iterator[int]:
        """The tokens of each record, given the texts of each."""
        for some in portions(records, CHARACTERS_AT_ONCE):
            encoded = self._tokenizer.encode_batch_fast([text for texts in some for text in texts], add_special_tokens=False)
            lengths = map(len, encoded)
            yield from (sum(islice(lengths, len(texts))) for texts in some)
