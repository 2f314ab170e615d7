"""The data set for machines: Croissant 1.0 of MLCommons, https://docs.mlcommons.org/croissant/docs/croissant-spec.html, as JSON-LD.

A record set a split, a field a column; of lists of messages a field has subfields.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from llamaflow.files import sha256
from llamaflow.records import META, SCHEMA, SPLITS

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
ENCODING = "application/x-parquet"
# the specification's own context
TERMS = (
    "citeAs column equivalentProperty extract field fileObject fileProperty fileSet format includes isLiveDataset jsonPath key md5 parentField path "
    "recordSet references regex repeated replace samplingRate separator source subField transform"
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
} | {term: f"cr:{term}" for term in TERMS.split()}
TYPES = {pa.string(): "sc:Text", pa.bool_(): "sc:Boolean"}


def croissant(directory: Path, description: str, digest: str, licences: Sequence[str]) -> dict[str, Any]:
    """What croissant.json beside the Parquet files of a directory says; `digest` is the data's own, its version."""
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": f"llamaflow-{digest[:12]}",
        "description": description,
        "conformsTo": CONFORMS_TO,
        "license": list(licences),
        "version": f"1.0.0+{digest[:12]}",
        "distribution": [_file(directory / f"{split}.parquet") for split in SPLITS],
        "recordSet": [_records(split) for split in SPLITS],
    }


def _file(path: Path) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": path.name,
        "name": path.name,
        "contentUrl": path.name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": ENCODING,
        "sha256": sha256(path),
    }


def _records(split: str) -> dict[str, Any]:
    fields = [_field(split, column.name, column.type) for column in SCHEMA]
    return {"@type": "cr:RecordSet", "@id": split, "name": split, "key": {"@id": f"{split}/id"}, "field": fields}


def _field(split: str, column: str, kind: Any) -> dict[str, Any]:
    field: dict[str, Any] = {"@type": "cr:Field", "@id": f"{split}/{column}", "name": column}
    if kind in TYPES:
        return field | {"dataType": TYPES[kind], "source": _source(split, column)}
    parts = META if kind == META else kind.value_type
    inner = [
        {
            "@type": "cr:Field",
            "@id": f"{split}/{column}/{part.name}",
            "name": part.name,
            "dataType": TYPES[part.type],
            "source": _source(split, column, part.name),
        }
        for part in parts
    ]
    return field | {"repeated": kind != META, "subField": inner}


def _source(split: str, column: str, part: str | None = None) -> dict[str, Any]:
    source = {"fileObject": {"@id": f"{split}.parquet"}, "extract": {"column": column}}
    return source | ({"transform": {"jsonPath": part}} if part else {})
