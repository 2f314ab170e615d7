#!/usr/bin/env python3
"""Draw a model anew: the architecture of a base model, random weights, and a tokenizer trained on the data.

initialise_model.py --model model/ --dataset dataset/ < {"scratch": {...}, "models": {...}}  ->  <outdir>/model/  initialise_model.json

The tokenizers know every byte, so that no text is unknown to them and decoding gives back what was encoded.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaflow.chat import render
from llamaflow.description import describe
from llamaflow.errors import UsageError, exits_cleanly
from llamaflow.files import read_json, write_json
from llamaflow.models import load_tokenizer, trusted
from llamaflow.params import Scratch
from llamaflow.records import read_rows, turns_of
from llamaflow.steps import read_settings, receipt, say
from llamaflow.validation import nearest

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
END = "<|endoftext|>"
MARK = re.compile(r"<\|[\w-]+\|>")  # what chat templates put around messages
ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")
BYTES = 256
CONTINUED = "⋯"  # before a piece that does not begin a word; no byte is written so, as ## is
LONGEST_WORD = 100  # bytes; WordPiece looks at every part of a word, and gives up on longer ones
# learning rates by number of parameters: Pythia, Biderman et al. 2023, https://arxiv.org/abs/2304.01373, table 1
LEARNING_RATES = ((100e6, 1e-3), (250e6, 6e-4), (1.2e9, 3e-4), (2e9, 2e-4), (4e9, 1.6e-4), (float("inf"), 1.2e-4))

Train = Callable[[Iterator[str], int, list[str]], Any]  # texts, size of the vocabulary and special tokens -> a model of the tokenizers library


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the base model, from fetch_model")
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--outdir", type=Path, default=Path())
    return parser.parse_args(argv)


def run(base: Path, dataset: Path, scratch: Scratch, outdir: Path, *, trust: bool = False) -> dict[str, Any]:
    """Write outdir/model and return what model.json says of it."""
    part = outdir / "model.part"
    shutil.rmtree(part, ignore_errors=True)
    config = architecture(base, scratch.config_overrides, trust)
    tokenizer = trained_tokenizer(load_tokenizer(base, trust_remote_code=trust), dataset / "train.parquet", scratch)
    draw(config, tokenizer, scratch.init_seed, part)
    tokenizer.save_pretrained(part)
    # transformers knows better than tokenizer_config.json for some architectures, Qwen2 among them, and would not read tokenizer.json
    if type(load_tokenizer(part, trust_remote_code=trust)) is not type(tokenizer):
        raise UsageError(f"--from_scratch: transformers always gives {config.model_type} its own tokenizer. Take another architecture, such as llama or qwen3.")
    origin = {name: value for name, value in read_json(base / "model.json").items() if name in ("id", "source", "revision")}
    described = origin | {"kind": "scratch", "license": None} | describe(part, trust)
    described["learning_rate"] = next(rate for largest, rate in LEARNING_RATES if described["parameters"] <= largest)
    write_json(part / "model.json", described)
    shutil.rmtree(outdir / "model", ignore_errors=True)
    part.rename(outdir / "model")
    return described


def architecture(base: Path, overrides: str | None, trust: bool) -> PreTrainedConfig:
    """The configuration of the base's language model, not quantised, with the user's numbers in it."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base, trust_remote_code=trust).get_text_config()
    values = {name: value for name, value in config.to_dict().items() if name != "quantization_config"}
    changes = changes_of(values, overrides)
    try:
        return type(config).from_dict(values | changes)
    except Exception as error:  # whatever the architecture's own checks raise
        raise UsageError(f"--config_overrides {overrides}: {config.model_type} does not accept that: {error}") from error


def changes_of(values: dict[str, Any], overrides: str | None) -> dict[str, Any]:
    """What the user's numbers change in a configuration, what follows from them included. Raises UsageError if they do not fit together."""
    given = {name.strip(): json.loads(value) for name, value in (part.split("=") for part in overrides.split(","))} if overrides else {}
    for name, value in given.items():
        refuse_misfit(name, value, values)
    made = values | given
    heads, width = made.get("num_attention_heads"), made.get("hidden_size")
    # as wide as the base's heads only if that is not what follows from its sizes
    if heads and width and values.get("head_dim") in (None, values["hidden_size"] // values["num_attention_heads"]) and "head_dim" not in given:
        if width % heads:
            raise UsageError(f"--config_overrides: hidden_size {width} is not a multiple of num_attention_heads {heads}. Change one of them.")
        given |= {"head_dim": width // heads} if "head_dim" in values else {}
    if heads and (shared := made.get("num_key_value_heads")) and heads % shared:
        raise UsageError(f"--config_overrides: num_attention_heads {heads} is not a multiple of num_key_value_heads {shared}. Give both.")
    return given | ({"layer_types": None} if "num_hidden_layers" in given and "layer_types" in values else {})


def refuse_misfit(name: str, value: float, values: dict[str, Any]) -> None:
    """Raise UsageError if a configuration has no such number."""
    if name == "vocab_size" or name.endswith("_token_id"):
        raise UsageError(f"--config_overrides: {name} follows from the tokenizer. The size of its vocabulary is --vocab_size.")
    known = {key: found for key, found in values.items() if isinstance(found, int | float)}
    if name not in known:
        raise UsageError(f"--config_overrides: {name} is no number of the model's config.json{nearest(name, known)}. It has {', '.join(sorted(known))}.")
    if isinstance(known[name], bool) != isinstance(value, bool) or (isinstance(known[name], int) and not isinstance(value, int)):
        raise UsageError(f"--config_overrides: {name}={json.dumps(value)} is not of the kind of the model's own {name}={json.dumps(known[name])}")
    if isinstance(value, int) and not isinstance(value, bool) and value < 1 <= known[name]:
        raise UsageError(f"--config_overrides: {name}={value} must be at least 1")


def draw(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, seed: int, target: Path) -> None:
    """Write random weights, drawn as the architecture wants it, and their configuration."""
    import torch
    from transformers import AutoModelForCausalLM, logging

    logging.disable_progress_bar()
    config.vocab_size = len(tokenizer)
    for role in ROLES[:3]:
        setattr(config, f"{role}_id", getattr(tokenizer, f"{role}_id"))
    torch.manual_seed(seed)
    try:
        model = AutoModelForCausalLM.from_config(config, dtype=config.dtype).eval()
        with torch.no_grad():
            model(torch.tensor([[0, 1]]))  # some sizes fit together only on paper
    except (ValueError, RuntimeError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise UsageError(
            f"--from_scratch: {config.model_type} cannot be drawn in these sizes ({type(error).__name__}: {str(error).splitlines()[0]})"
        ) from error
    model.save_pretrained(target)


def trained_tokenizer(base: PreTrainedTokenizerBase, records: Path, scratch: Scratch) -> PreTrainedTokenizerFast:
    """A tokenizer trained on the texts of the records, with the special tokens and the chat template of the base, or else ChatML."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    named, template = special_tokens(base), base.chat_template or CHATML
    special = list(dict.fromkeys([*named.values(), *marks(base, template)]))
    least = len(special) + BYTES * (2 if scratch.tokenizer_type == "wordpiece" else 1)
    if scratch.vocab_size < least:
        raise UsageError(f"--vocab_size {scratch.vocab_size} is too small: {scratch.tokenizer_type} takes {least} tokens for bytes and special tokens alone")
    inner = Tokenizer(TRAIN[scratch.tokenizer_type](texts_in(records), scratch.vocab_size, special))
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)
    wordpiece = scratch.tokenizer_type == "wordpiece"
    inner.pre_tokenizer = pre_tokenizers.Sequence([by_bytes, pre_tokenizers.FixedLength(LONGEST_WORD)]) if wordpiece else by_bytes
    inner.decoder = decoders.Sequence([decoders.Replace(CONTINUED, ""), decoders.ByteLevel()]) if wordpiece else decoders.ByteLevel()
    inner.post_processor = processors.ByteLevel(trim_offsets=False)
    inner.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=base.model_max_length, **named)
    tokenizer.chat_template = template
    if len(tokenizer) < scratch.vocab_size:
        say(f"The training data give a vocabulary of {len(tokenizer):,} tokens, fewer than --vocab_size {scratch.vocab_size:,}.")
    return tokenizer


def special_tokens(base: PreTrainedTokenizerBase) -> dict[str, str]:
    """Names of special tokens by role, as the base has them; there is always one that ends a text."""
    named = {role: str(token) for role in ROLES if (token := getattr(base, role))}
    end = named.setdefault("eos_token", END)
    return {"pad_token": end} | named


def marks(base: PreTrainedTokenizerBase, template: str) -> list[str]:
    """The special tokens that a chat template writes: those of the base, and what looks like one."""
    text = str(template)
    if base.chat_template:
        text += render(base, [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}])  # a template may put marks together from parts
    known = [token.content for token in base.added_tokens_decoder.values() if token.special]
    return [token for token in known if token in text] + sorted(set(MARK.findall(text)))


def texts_in(records: Path) -> Iterator[str]:
    """Every text of the records, a batch in memory at a time; of messages the role too, since the chat template writes it."""
    for record in read_rows(records, ("text", "messages", "prompt", "chosen", "rejected")):
        if record["text"]:
            yield record["text"]
        for turn in turns_of(record):
            yield from (turn["role"], turn["content"] or "")


def alphabet() -> list[str]:
    """The characters that stand for bytes: Radford et al. 2019 (GPT-2), section 2.2."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def train_bpe(texts: Iterator[str], size: int, special: list[str]) -> Any:
    """Byte-pair encoding: Sennrich et al. 2016, https://arxiv.org/abs/1508.07909."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, min_frequency=2, special_tokens=special, initial_alphabet=alphabet(), show_progress=False)
    )
    return learner.model


def train_wordpiece(texts: Iterator[str], size: int, special: list[str]) -> Any:
    """WordPiece: Wu et al. 2016, https://arxiv.org/abs/1609.08144; as in the tokenizers library, pieces are those of byte-pair encoding."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    learner = Tokenizer(models.WordPiece())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    # as special tokens all continued bytes are there, and in the same order each time; else they come as a hash map has them
    first = [*special, *(CONTINUED + byte for byte in alphabet())]
    learner.train_from_iterator(
        texts,
        trainers.WordPieceTrainer(
            vocab_size=size, min_frequency=2, special_tokens=first, initial_alphabet=alphabet(), continuing_subword_prefix=CONTINUED, show_progress=False
        ),
    )
    return models.WordPiece(learner.get_vocab(), max_input_chars_per_word=LONGEST_WORD, continuing_subword_prefix=CONTINUED)


# words reach SentencePiece as the bytes that they are to stay, and special tokens do not reach it
AS_THEY_ARE: dict[str, Any] = {
    **dict.fromkeys(("add_dummy_prefix", "remove_extra_whitespaces", "split_by_whitespace", "split_by_unicode_script", "split_by_number"), False),
    **dict.fromkeys(("bos_id", "eos_id", "pad_id"), -1),
}


def train_unigram(texts: Iterator[str], size: int, special: list[str]) -> Any:
    """Unigram: Kudo 2018, https://arxiv.org/abs/1804.10959; by SentencePiece, since the tokenizers library gives another result each time."""
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
    from tokenizers import models, pre_tokenizers

    split = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
    words = Counter(word for text in texts for word, _ in split(text))
    unseen = [byte for byte in alphabet() if not any(byte in word for word in words)]
    trained = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=(f"{word}\t{count}" for word, count in sorted(words.items())),
        input_format="tsv",
        model_writer=trained,
        model_type="unigram",
        vocab_size=size - len(special) - len(unseen) + 1,  # and its own <unk>
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="identity",
        **AS_THEY_ARE,
        num_threads=1,
        minloglevel=2,
    )
    found = SentencePieceProcessor(model_proto=trained.getvalue())
    pieces = [(found.id_to_piece(number), found.get_score(number)) for number in range(1, found.get_piece_size())]
    rarest = min(score for _, score in pieces)
    return models.Unigram([*((token, 0.0) for token in special), *pieces, *((byte, rarest) for byte in unseen)])


TRAIN: dict[str, Train] = {"bpe": train_bpe, "wordpiece": train_wordpiece, "unigram": train_unigram}


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    given = read_settings()
    scratch = Scratch.model_validate(given["scratch"])
    with receipt("initialise_model", given, args.outdir) as written:
        described = run(args.model, args.dataset, scratch, args.outdir, trust=trusted(given))
        written.inputs = {"model": read_json(args.model / "model.json")["sha256"], "dataset": read_json(args.dataset / "dataset.json")["sha256"]}
        written.outputs["model"] = described["sha256"]
        written.counts = {name: described[name] for name in ("parameters", "vocabulary")}


if __name__ == "__main__":
    main()
