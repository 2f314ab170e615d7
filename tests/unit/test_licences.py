"""What licences ask, and what of them does not go together."""

from __future__ import annotations

import pytest

from llamaflow.licences import CLASSES, classes_of, family_of, hub_names, warnings_about


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("CC0-1.0", "PDDL-1.0", "Unlicense"), ("public domain",)),
        (("CC-BY-4.0", "cc-by-3.0-de", "MIT", "apache-2.0", "BSD-3-Clause", "ODC-By-1.0"), ("permissive",)),
        (("CC-BY-SA-3.0", "GPL-3.0-only", "ODbL-1.0", "LGPL-2.1-or-later", "GFDL-1.3-or-later"), ("share-alike",)),
        (("CC-BY-NC-4.0",), ("non-commercial",)),
        (("CC-BY-NC-SA-4.0",), ("share-alike", "non-commercial")),
        (("CC-BY-NC-ND-4.0",), ("non-commercial", "no derivatives")),
        (("unknown", "our own", "MIT OR Apache-2.0", "proprietary-cc-by-4.0"), ("unknown",)),
    ],
)
def test_classes(names: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert {classes_of(name) for name in names} == {expected}
    assert set(expected) <= set(CLASSES)


def test_what_goes_together_needs_no_warning() -> None:
    assert warnings_about(["CC0-1.0", "MIT", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0"]) == []
    assert warnings_about(["GPL-3.0-only", "AGPL-3.0-or-later", "LGPL-2.1-or-later"]) == []


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["CC-BY-NC-4.0", "MIT"], ["CC-BY-NC-4.0: commercial use is not allowed"]),
        (["CC-BY-ND-4.0"], ["CC-BY-ND-4.0: changed versions must not be passed on"]),
        (["CC-BY-SA-4.0", "GFDL-1.3-only"], ["CC-BY-SA-4.0 and GFDL-1.3-only: each asks"]),
        (["GPL-2.0-only", "GPL-3.0-only"], ["GPL-2.0-only and GPL-3.0-only: each asks"]),
        (["CC-BY-SA-4.0", "CC-BY-NC-SA-4.0"], ["commercial use", "each asks"]),
        (["ours", "unknown"], ["ours: no licence that is known here", "Some records came without a licence"]),
    ],
)
def test_warnings(names: list[str], words: list[str]) -> None:
    found = warnings_about(names)
    assert len(found) == len(words)
    assert all(word in warning for word, warning in zip(words, found, strict=True))


def test_old_creative_commons_licences_had_no_later_version() -> None:
    assert family_of("CC-BY-SA-1.0") != family_of("CC-BY-SA-2.0") == family_of("CC-BY-SA-4.0")


def test_names_of_the_hub() -> None:
    assert hub_names(["GPL-3.0-only", "ODC-By-1.0", "CC-BY-4.0", "ours", "unknown"]) == ["cc-by-4.0", "gpl-3.0", "odc-by", "other", "unknown"]
