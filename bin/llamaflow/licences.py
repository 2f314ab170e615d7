"""What licences ask of those who use the data: SPDX names by class, and what does not go together. No legal advice.

Names are those of https://spdx.org/licenses; what share-alike licences of Creative Commons fit together is from their section 4(b) (2.0 and later).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

PUBLIC_DOMAIN, PERMISSIVE, SHARE_ALIKE, NON_COMMERCIAL, NO_DERIVATIVES, UNKNOWN = CLASSES = (
    "public domain",
    "permissive",
    "share-alike",
    "non-commercial",
    "no derivatives",
    "unknown",
)
NOT_GIVEN = "unknown"  # in place of a name; the Hugging Face Hub's word too
CREATIVE_COMMONS = re.compile(r"cc-by(?P<nc>-nc)?(?P<nd>-nd)?(?P<sa>-sa)?-(?P<version>\d\.\d)(-[a-z-]+)?")
NAMES = (
    (PUBLIC_DOMAIN, re.compile(r"cc0-1\.0|pddl(-1\.0)?|cc-pddc|unlicense")),
    (
        PERMISSIVE,
        re.compile(
            r"mit(-0)?|apache-2\.0|[0-4]?bsd(-[234]-clause.*)?|isc|zlib|bsl-1\.0|odc-by(-1\.0)?|cdla-permissive-[12]\.0"
            r"|ogl-uk-[123]\.0|etalab-2\.0|dl-de-(by|zero)-2\.0|nlod-[12]\.0|postgresql|python-2\.0|wtfpl"
        ),
    ),
    (SHARE_ALIKE, re.compile(r"[al]?gpl-\d\.\d(-only|-or-later|\+)?|gfdl-1\.\d.*|odbl(-1\.0)?|cdla-sharing-1\.0|mpl-[12]\.\d|epl-[12]\.0|eupl-1\.[12]")),
)
# section 13 of GPL-3.0 and AGPL-3.0, section 2 of LGPL-3.0, and what "or later" allows
GPL_3 = re.compile(r"[al]?gpl-3\.0.*|l?gpl-2\.\d(-or-later|\+)")


def classes_of(name: str) -> tuple[str, ...]:
    """What a licence is: one or more of CLASSES."""
    folded = name.strip().lower()
    if match := CREATIVE_COMMONS.fullmatch(folded):
        found = [kind for part, kind in (("sa", SHARE_ALIKE), ("nc", NON_COMMERCIAL), ("nd", NO_DERIVATIVES)) if match[part]]
        return tuple(found) or (PERMISSIVE,)
    return next(((kind,) for kind, names in NAMES if names.fullmatch(folded)), (UNKNOWN,))


def family_of(name: str) -> str:
    """Share-alike licences of one family fit together: what is made of works under them can be under the latest of them."""
    folded = name.strip().lower()
    if (match := CREATIVE_COMMONS.fullmatch(folded)) and match["version"] != "1.0":
        return "cc-by-nc-sa" if match["nc"] else "cc-by-sa"
    return "gpl-3.0" if GPL_3.fullmatch(folded) else folded


def warnings_about(names: Iterable[str]) -> list[str]:
    """What to think of before data under these licences, taken together, is used or passed on; one sentence each."""
    by_class: dict[str, list[str]] = {kind: [] for kind in CLASSES}
    for name in sorted(set(names)):
        for kind in classes_of(name):
            by_class[kind].append(name)
    warnings = []
    if forbidding := by_class[NON_COMMERCIAL]:
        warnings.append(f"{_listed(forbidding)}: commercial use is not allowed.")
    if forbidding := by_class[NO_DERIVATIVES]:
        warnings.append(f"{_listed(forbidding)}: changed versions must not be passed on, and records here were cleaned and cut; a model may count as one too.")
    shared = by_class[SHARE_ALIKE]
    if len({family_of(name) for name in shared}) > 1:
        warnings.append(f"{_listed(shared)}: each asks that what is made of it is passed on under itself, so they may not fit together.")
    if named := [name for name in by_class[UNKNOWN] if name != NOT_GIVEN]:
        warnings.append(f"{_listed(named)}: no licence that is known here; read its terms.")
    if NOT_GIVEN in by_class[UNKNOWN]:
        warnings.append(
            "Some records came without a licence: unless somebody allowed it, they must not be passed on. Name it in the samplesheet's column license."
        )
    return warnings


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def hub_names(names: Iterable[str]) -> list[str]:
    """The Hugging Face Hub's own words for licences, for the metadata of a card: lower case, other, unknown."""
    found = set()
    for name in names:
        plain = re.sub(r"-only|-or-later|\+|(?<=^odc-by)-1\.0|(?<=^pddl)-1\.0|(?<=^odbl)-1\.0", "", name.strip().lower())
        found.add(NOT_GIVEN if name == NOT_GIVEN else "other" if classes_of(name) == (UNKNOWN,) else plain)
    return sorted(found)
