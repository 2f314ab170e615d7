"""A tiny model for token classification, trained here until it finds the names in sentences like those below, and tells them from places."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

FIRST, LAST = ("Ana", "Bruno", "Clara", "Dmitri", "Eva", "Femi"), ("Souza", "Keller", "Okafor", "Lindqvist", "Moreau")
PLACES = ("Lisbon", "Hamburg", "Recife", "Leeds")
SENTENCES = (
    "Please ask {name} about the form.",
    "{name} works in {place} since May.",
    "The letter from {place} is signed by {name} and {name}.",
    "Thank you, {name}.",
    "Is the office in {place} open today?",
    "Nobody knows when the report of the year is due.",
)
LABELS = ("O", "B-PER", "I-PER", "B-LOC")
WORDS = re.compile(r"\w+|[^\w\s]+")  # as the tokenizer parts them
POSITIONS, STEPS, TEXTS_A_STEP = 64, 200, 16


def sentence(rng: random.Random) -> str:
    fillings = {"{name}": lambda: " ".join([rng.choice(FIRST), *([rng.choice(LAST)] if rng.random() < 0.7 else [])]), "{place}": lambda: rng.choice(PLACES)}
    return re.sub(r"\{\w+\}", lambda place: fillings[place[0]](), rng.choice(SENTENCES))


def label_of(word: str) -> int:
    return 1 if word in FIRST else 2 if word in LAST else 3 if word in PLACES else 0


def write_tokenizer(directory: Path) -> Any:
    """A token a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = sorted({*FIRST, *LAST, *PLACES, *WORDS.findall(" ".join(SENTENCES))})
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(["[PAD]", "[UNK]", *words])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(directory)
    return fast


def examples(rng: random.Random, tokenizer: Any) -> tuple[Any, Any]:
    """Tokens and labels of some texts, the same number of words of each."""
    import torch

    length = rng.randrange(1, POSITIONS + 1)
    texts = [WORDS.findall(" ".join(sentence(rng) for _ in range(length)))[:length] for _ in range(TEXTS_A_STEP)]
    return torch.tensor([tokenizer.convert_tokens_to_ids(words) for words in texts]), torch.tensor([list(map(label_of, words)) for words in texts])


def write_name_finder(directory: Path) -> Path:
    import torch
    from transformers import BertConfig, BertForTokenClassification, logging

    logging.disable_progress_bar()
    tokenizer, rng, right = write_tokenizer(directory), random.Random(0), 0
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": POSITIONS}
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {label: number for number, label in enumerate(LABELS)}}
    model = BertForTokenClassification(BertConfig(vocab_size=len(tokenizer), **sizes, **labels)).eval()  # without dropout
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(STEPS):
        tokens, wanted = examples(rng, tokenizer)
        result = model(input_ids=tokens, labels=wanted)
        right = right + 1 if bool((result.logits.argmax(-1) == wanted).all()) else 0
        if right == 30:
            break
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
    assert right == 30, "it has not learnt to find names"
    model.save_pretrained(directory)
    return directory
