"""What shares a split: records that are about one person, were made from one text, or belong to one document.

Groups are numbers (uint64 [records]), equal for records that are drawn as one, and in the order of the draw.
"""

from __future__ import annotations

import numpy as np

from llamaflow.identities import NOTHING
from llamaflow.previous import NOT_GIVEN, Numbers
from llamaflow.records import SPLITS

MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, so that different numbers stay different (Knuth, TAOCP 3, 6.4)
PARTS = 4  # of a document that is cut, as many as this make a split: one alone would be a test of one chapter


def joined(groups: Numbers, keys: Numbers) -> Numbers:
    """Groups that share a key become one: each takes the lowest number that a chain of shared groups and keys leads to. NOTHING is no key.

    Labels go to the neighbours and to the lowest group known so far, and chains are cut short: a few rounds do for any chain.
    Zhang, Azad & Hu 2020 (FastSV), https://arxiv.org/abs/1910.05971.
    """
    known = keys != NOTHING
    if not known.any():
        return groups
    names, group = np.unique(groups, return_inverse=True)
    members, key = group[known], np.unique(keys[known], return_inverse=True)[1]
    lowest = np.arange(len(names))
    while True:
        of_key = np.full(key.max() + 1, len(names))
        np.minimum.at(of_key, key, lowest[members])
        found = lowest.copy()
        for place in (members, lowest[members]):
            np.minimum.at(found, place, of_key[key])
        found = found[found]
        if (found == lowest).all():
            break
        lowest = found
    # the lowest of many is low, and low numbers are drawn first: mixed anew
    return np.where(np.bincount(lowest)[lowest] > 1, names[lowest] * MIX, names)[group]


def with_documents(groups: Numbers, documents: Numbers, places: Numbers, room: Numbers) -> Numbers:
    """Join the groups of each document, as far as it can be drawn.

    places: int8 [records], the split that a record, or its document, is in already, or NOT_GIVEN; room: int64 [records], how many records a split can take.
    What has more records than that, or records in several splits, is cut into parts: neighbours still share a split.
    """
    wholes = joined(groups, documents)
    if wholes is groups:
        return groups
    whole, sizes = np.unique(wholes, return_inverse=True, return_counts=True)[1:]
    is_free = places == NOT_GIVEN
    first, last = _first_and_last(whole, places, len(sizes))
    most = np.full(len(sizes), np.iinfo(np.int64).max)
    np.minimum.at(most, whole[is_free], room[is_free])
    is_cut = np.where(last == NOT_GIVEN, sizes > most, first < last)[whole]
    cut = np.flatnonzero(is_cut & ~np.isin(groups, groups[~is_free]))
    found = np.where(is_cut, groups, wholes)
    if len(cut):
        found[cut] = _parts(groups[cut], whole[cut], np.maximum(most // PARTS, 1)[whole[cut]])
    return found


def agreed(wholes: Numbers, places: Numbers) -> Numbers:
    """int8 [records]: the one split that those of each whole are in, as far as they are in any; NOT_GIVEN for none or several."""
    names, whole = np.unique(wholes, return_inverse=True)
    first, last = _first_and_last(whole, places, len(names))
    return np.where(first == last, last, NOT_GIVEN)[whole]


def _first_and_last(whole: Numbers, places: Numbers, count: int) -> tuple[Numbers, Numbers]:
    """int8 [count]: the least and the greatest place in SPLITS that the records of each whole have."""
    first, last = np.full(count, len(SPLITS), dtype=np.int8), np.full(count, NOT_GIVEN, dtype=np.int8)
    known = places != NOT_GIVEN
    np.minimum.at(first, whole[known], places[known])
    np.maximum.at(last, whole[known], places[known])
    return first, last


def _parts(groups: Numbers, wholes: Numbers, sizes: Numbers) -> Numbers:
    """Cut each whole into parts of about so many records: groups that follow each other, by their first records. A part is known by its first group."""
    names, firsts, group, counts = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((firsts, wholes[firsts]))
    whole, before = wholes[firsts[order]], np.cumsum(counts[order]) - counts[order]
    starts = np.flatnonzero(np.diff(whole, prepend=-1))
    within = before - np.repeat(before[starts], np.diff(np.append(starts, len(whole))))
    part = within // sizes[firsts[order]]
    is_first = (np.diff(whole, prepend=-1) != 0) | (np.diff(part, prepend=-1) != 0)
    leaders = np.empty_like(names)
    leaders[order] = names[order][is_first][np.cumsum(is_first) - 1]
    return leaders[group]
