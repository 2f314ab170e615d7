"""Configurations with any values: what is written can be run, or is refused in words."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from configurations import CHAT, FREEZE, FULL, LORA, QLORA, QUANTISED, keys_of, lay_out
from hypothesis import given, settings
from hypothesis import strategies as st

import import_config
from llamaflow.errors import UsageError
from llamaflow.importers import axolotl, llamafactory
from llamaflow.params import Params
from llamaflow.validation import resolve

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 5000),
    st.floats(width=32),
    st.sampled_from(["", "auto", "1e-4", "all", "lora", "a,b", "acme/b", "x.csv", "\n", "\a", "../y", "nan"]),
    st.lists(st.sampled_from(["q_proj", 1, None, ["a"]]), max_size=2),
    st.dictionaries(st.sampled_from(["path", "type", "role"]), st.sampled_from(["a.csv", 1, ["b"]]), max_size=2),
)
AXOLOTL_KEYS = sorted({*axolotl.NAMES, *keys_of(QLORA, CHAT, FULL), "peft_init_lora_weights", "chat_template_jinja", "warmup_ratio"})
ENTRY_KEYS = ["path", "type", "data_files", "name", "split", "revision", "field", "field_messages", "message_property_mappings", "roles", "message_field_role"]
FACTORY_KEYS = sorted({*llamafactory.NAMES, *keys_of(LORA, QUANTISED, FREEZE), "pissa_init", "packing", "model_revision"})


@settings(max_examples=100)
@given(
    st.dictionaries(st.sampled_from(AXOLOTL_KEYS), VALUES, max_size=8),
    st.dictionaries(st.sampled_from(ENTRY_KEYS), VALUES, max_size=4),
    st.dictionaries(st.sampled_from(FACTORY_KEYS), VALUES, max_size=8),
)
def test_whatever_the_values_the_result_can_be_run_or_is_refused(one: dict[str, Any], entry: dict[str, Any], other: dict[str, Any]) -> None:
    with TemporaryDirectory() as scratch:
        root = Path(scratch)
        lay_out(root)
        configs = {"axolotl": {"base_model": "acme/a", "datasets": [{"path": "b.csv"}, entry]} | one}
        configs["factory"] = {"model_name_or_path": "acme/a", "dataset": "identity", "dataset_dir": str(root / "data")} | other
        for name, config in configs.items():
            path = root / f"{name}.yaml"
            path.write_text(yaml.safe_dump(config))
            try:
                import_config.run(path, None, root / f"{name}.params.yaml")
            except UsageError:
                continue
            assert isinstance(resolve(yaml.safe_load((root / f"{name}.params.yaml").read_text())), Params)
