"""Licences by the names that the hub of Hugging Face lists."""

import re


def licence_keys(licence: str) -> dict[str, str]:
    """Return the keys of a header for a licence: one that the hub does not list is `other`.

    >>> licence_keys("Apache-2.0")
    {'license': 'apache-2.0'}
    >>> licence_keys("research only")
    {'license': 'other', 'license_name': 'research-only'}
    """
    if not licence:
        return {}
    if licence.lower() in _LISTED:
        return {"license": licence.lower()}
    return {"license": "other", "license_name": re.sub(r"[^\w.-]+", "-", licence.lower())}


_NAMES = (
    "afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m "
    "bigscience-bloom-rail-1.0 bigscience-openrail-m bsd bsd-2-clause bsd-3-clause "
    "bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 "
    "cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 "
    "cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 "
    "cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m ecl-2.0 "
    "epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 fair-noncommercial-research-license gfdl "
    "gpl gpl-2.0 gpl-3.0 h-research intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr "
    "lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++ osl-3.0 other "
    "pddl postgresql unknown unlicense wtfpl zlib "
)

_LISTED = frozenset(_NAMES.split())
