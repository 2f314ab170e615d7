"""The parameters of the data, from the sources to the splits. See params.py, of which they are a part."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field, field_validator, model_validator

from llamaflow.choices import Several
from llamaflow.groups import Group, hidden

PersonalType = Literal[
    "private_key", "url_credentials", "api_key", "email", "iban", "cnpj", "cpf", "credit_card", "rg", "passport", "ip", "phone", "name"
]  # fmt: skip
Action = Literal["keep", "mask", "hash", "drop"]
PERSONAL_TYPES: tuple[PersonalType, ...] = get_args(PersonalType)
ACTIONS: tuple[Action, ...] = get_args(Action)
ADDRESS = re.compile(r"https?://[^\s/?#@]+(/[^\s?#@]*)?")


def _language(code: str) -> str:
    if not re.fullmatch("[a-z]{2,3}", code):
        raise ValueError(f"{code!r} is no language code; expected codes of ISO 639-1, such as en or pt")
    return code


def _country(code: str) -> str:
    if not re.fullmatch("[A-Z]{2}", code):
        raise ValueError(f"{code!r} is no country code; expected codes of ISO 3166, such as BR or US")
    return code


class InputOutput(Group):
    """Input and output"""

    input: str = Field(
        description="A samplesheet (CSV with the columns id and path, one row a data source) or one data file (JSONL, JSON, CSV, TSV, Parquet, TXT, Markdown, each plain, .gz or .zst; HTML, PDF, DOCX, XLSX, EPUB), local, http(s), s3, gs or hf.",
        json_schema_extra={"format": "file-path", "mimetype": "text/csv"},
    )
    outdir: str = Field(description="Directory for all results; made if it does not exist.", json_schema_extra={"format": "directory-path"})
    source_cache: str | None = Field(
        None,
        description="Where files fetched from addresses, stores and the Hub are kept for later runs, which fetch only what has changed; a directory that all tasks can reach. Default: nothing is kept.",
        json_schema_extra={"format": "directory-path"},
    )

    @field_validator("source_cache")
    @classmethod
    def _is_a_directory(cls, path: str | None) -> str | None:
        if path and "://" in path:
            raise ValueError("expected a directory that all tasks can reach, not an address")
        return path


class Collection(Group):
    """Data collection"""

    max_dropped_fraction: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Stop when more than this share of a source's records is malformed or unusable. Duplicates, and what the filters that you chose leave out, do not count.",
    )
    records_per_shard: int = hidden(50_000, "A source with more records is cleaned in several tasks, each with so many; the result is the same.", ge=1)
    on_source_error: Literal["stop", "skip"] = Field(
        "stop", description="What to do when a source cannot be read at all: stop, or skip it, say so in the report, and go on with the others."
    )


class Cleaning(Group):
    """Data cleaning"""

    min_characters: int = Field(1, ge=0, description="Records with fewer characters of text are dropped.")
    max_characters: int = Field(100_000, ge=1, description="Records with more characters of text are dropped.")
    min_tokens: int | None = Field(None, ge=1, description="Records with fewer tokens of text, as the tokenizer counts them, are dropped.")
    max_tokens: int | None = Field(None, ge=1, description="Records with more tokens of text, as the tokenizer counts them, are dropped.")
    tokenizer: str | None = Field(
        None,
        description="The model whose tokenizer counts tokens while data is prepared, for min_tokens, max_tokens and the weights of the samplesheet (without it, they are of bytes): a Hugging Face Hub id (owner/name or owner/name@revision), a directory, a .gguf file, or pkg://package/file. Only the tokenizer is fetched.",
    )
    quality_filter: Literal["none", "light", "web"] = Field(
        "light",
        description="Leave out debris: light (texts and answers that say the same again and again), web (for texts from the web also the rules of Gopher, C4 and FineWeb: too short, no sentences, lists of links, code), none.",
    )
    languages: Several[Annotated[str, AfterValidator(_language)]] | None = Field(
        None, description="Keep records in these languages only (ISO 639-1 codes: en,pt). Texts too short to tell are kept."
    )
    system_prompt: str | None = Field(
        None, description="A system message put before every conversation that has none; the model then answers best with the same one."
    )

    @property
    def has_token_bounds(self) -> bool:
        """Whether tokens are to be counted."""
        return self.min_tokens is not None or self.max_tokens is not None

    @model_validator(mode="after")
    def _leaves_lengths(self) -> Self:
        if self.min_tokens is not None and self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(f"--min_tokens {self.min_tokens} is more than --max_tokens {self.max_tokens}: no record could be kept")
        return self


class PersonalData(Group):
    """Personal data

    What the model never sees it cannot tell anyone. Names of people have no pattern: they stay, unless a model finds them.
    """

    personal_data: str = Field(
        "mask",
        description=f"What becomes of personal data and passwords in texts: mask ([EMAIL_1]), hash ([EMAIL 3f9a1c04be], the same for the same value everywhere), drop (the record) or keep; by type after it: mask,phone=keep,credit_card=drop. Types: {', '.join(PERSONAL_TYPES)}.",
    )
    names_model: str | None = Field(
        None,
        description="A model for token classification (NER) that finds names of people, the type name: a Hugging Face Hub id (owner/name or owner/name@revision), a directory, or pkg://package/file. Its labels must have one such as PER or PERSON.",
    )
    phone_regions: Several[Annotated[str, AfterValidator(_country)]] = hidden(
        ("BR", "US", "GB"), "Countries (ISO 3166 codes) whose phone numbers are known without + and country code."
    )
    erase_subjects: str | None = Field(
        None,
        description="A text file with one subject_id a line: these people's records, and whatever nearly equals them, are left out.",
        json_schema_extra={"format": "file-path"},
    )

    @field_validator("personal_data")
    @classmethod
    def _is_understood(cls, text: str) -> str:
        actions_of(text)
        return text

    @model_validator(mode="after")
    def _names_are_found(self) -> Self:
        parts = [part.replace(" ", "") for part in self.personal_data.split(",")]
        if self.names_model is None and any(part.startswith("name=") and part != "name=keep" for part in parts):
            raise ValueError("--personal_data says what becomes of names, which no pattern can find: give a --names_model that does, or leave name= out")
        return self


def actions_of(text: str) -> dict[PersonalType, Action]:
    """What to do with each type of personal data. Raises ValueError if `text` is not as described above."""
    first, *others = (part.strip() for part in text.split(","))
    if first not in ACTIONS:
        raise ValueError(f"it begins with {first!r}; expected {', '.join(ACTIONS[:-1])} or {ACTIONS[-1]}, and exceptions after it: mask,phone=keep")
    actions: dict[PersonalType, Action] = dict.fromkeys(PERSONAL_TYPES, first)
    for part in others:
        kind, _, action = (word.strip() for word in part.partition("="))
        if kind not in PERSONAL_TYPES or action not in ACTIONS:
            raise ValueError(
                f"{part!r} is not understood; expected type=action with a type of {', '.join(PERSONAL_TYPES)} and an action of {', '.join(ACTIONS)}"
            )
        actions[kind] = action
    return actions


class Generation(Group):
    """Questions from documents

    A model writes questions and answers about the texts of sources with `generate` in the samplesheet. These texts are sent, cleaned, to the server that you name.
    """

    generation_endpoint: str | None = Field(
        None,
        description="Address of a server with the API of OpenAI (OpenAI, Azure, vLLM, llama.cpp, Ollama, LM Studio), such as http://localhost:8000/v1. Its key, if it wants one, stands in the environment variable OPENAI_API_KEY.",
    )
    generation_model: str | None = Field(None, description="The model that is to write, by the name that the server knows it by.")
    generation_instructions: str | None = Field(None, description="What the model is to be told besides: the audience or the tone.")
    generation_temperature: float = hidden(0.3, "How freely it writes. Some models accept 1 only.", ge=0, le=2)
    generation_concurrency: int = hidden(4, "How many requests a task has under way at once.", ge=1, le=64)

    @model_validator(mode="after")
    def _has_an_address(self) -> Self:
        if self.generation_endpoint and not ADDRESS.fullmatch(self.generation_endpoint):
            raise ValueError("--generation_endpoint: expected an address such as http://localhost:8000/v1, without user, password or query")
        return self


class Deduplication(Group):
    """Duplicates and samples"""

    near_duplicate_threshold: float = Field(
        0.8,
        gt=0,
        le=1,
        description="Records are near-duplicates from this similarity on (shared runs of five words, Jaccard); of each cluster one is kept. 1: only exact duplicates are dropped.",
    )
    max_records: int | None = Field(
        None,
        ge=1,
        description="Keep at most so many records in all: a sample for a quick run, the same one every time. Of single sources: max_records in the samplesheet.",
    )
    keep_duplicate: Literal["first", "longest", "newest"] = Field(
        "first",
        description="Which of several near-duplicates is kept: the first (in the order of the samplesheet), the longest, or the newest (by created_at). Records that you put into test or validation come before all others.",
    )
    decontaminate_against: Several[str] | None = Field(
        None,
        description="Files (or directories or patterns) with the questions of benchmarks that you will evaluate on: records that contain one are left out, unless you put them into test.",
    )


class Splitting(Group):
    """Data splitting"""

    validation_fraction: float = Field(0.1, gt=0, lt=1, description="Share of the records kept for validation: early stopping and the learning curves use it.")
    test_fraction: float = Field(0.1, gt=0, lt=1, description="Share of the records kept for the final comparison with the base model; never trained on.")
    max_repeats: float = hidden(4.0, "How often a source may be gone through to reach its weight in the samplesheet; more teaches little.", ge=1)
    stratify_by: Literal["source", "label"] = Field("source", description="Keep the shares equal within each source, or within each label.")
    group_by: Literal["document", "record"] = Field(
        "document",
        description="What is drawn as a whole: a document (sections of one file or page, mails of one thread, rows with the same document_id; one that no split could hold is cut into parts), or each record by itself. Records with the same prompt or about the same person share a split in any case.",
    )
    split_by: Literal["chance", "time"] = Field(
        "chance",
        description="Which records are kept for test and validation: drawn by chance, or the newest (by created_at), as a model that is trained today will meet those of tomorrow. Within each source or label; records without a date count as the oldest.",
    )
    split_seed: int = Field(42, ge=0, description="Seed of the split: the same records and seed give the same split.")
    previous_dataset: str | None = Field(
        None,
        description="The directory data/ of an earlier run's results: records that were in it stay in their split, and only new ones are drawn.",
        json_schema_extra={"format": "directory-path"},
    )
