"""The CDNOW purchases, which lie beside the project, and which of its customers were sampled.

`published_sample.txt` holds the ids of the 2,357 customers, of 23,570, whom the publications on
this data fit their models to (Fader, Hardie and Lee 2005; brucehardie.com). They are no regular
part of all: every tenth customer gives other figures.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import pytest

FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "cdnow"
CALIBRATION_ENDS = date(1997, 9, 30)
"""Of the published fits: 39 weeks, of which nobody is seen for more than 38.86."""


class Purchase(NamedTuple):
    customer: str
    on: date
    amount: Decimal


def sampled_customers() -> frozenset[str]:
    """The ids of the published sample."""
    return frozenset(Path(__file__).with_name("published_sample.txt").read_text().split())


def sampled_purchases(through: date) -> list[Purchase]:
    """Those of the published sample up to a day, as the file has them; skips the test without."""
    file = FOLDER / "CDNOW_master.txt"
    if not file.exists():
        pytest.skip(f"{file} is not there: the CDNOW purchases are no part of the project")
    sample = sampled_customers()
    found = []
    for line in file.read_text().splitlines():
        fields = line.split()
        if fields and fields[0] in sample:
            day = date.fromisoformat(f"{fields[1][:4]}-{fields[1][4:6]}-{fields[1][6:]}")
            if day <= through:
                found.append(Purchase(fields[0], day, Decimal(fields[3])))
    return found
