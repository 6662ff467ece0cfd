"""Everything wrong with a dataset, before training: `t2i data check`. Needs neither torch nor a model.

`check` looks, `write_fixed` writes a clean copy, `sheet` draws the pictures with problems.
"""

from t2i.datacheck.checking import Checked, check, packed_dataset
from t2i.datacheck.findings import KINDS, NOTES, PROBLEMS, Finding, Report
from t2i.datacheck.fixing import check_target, write_fixed
from t2i.datacheck.sheet import sheet

__all__ = [
    "KINDS", "NOTES", "PROBLEMS", "Checked", "Finding", "Report", "check", "check_target",
    "packed_dataset", "sheet", "write_fixed",
]  # fmt: skip
