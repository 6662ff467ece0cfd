"""`t2i data check`: what is wrong with a dataset, before anything is trained on it."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from t2i import environment
from t2i.cli.door import notice, printable
from t2i.cli.options import config_command
from t2i.config.data import DataCheckConfig, DataOutputConfig


@config_command(DataCheckConfig, also=DataOutputConfig, positional="folder")
def check(given: dict[str, Any], door: DataOutputConfig) -> int:
    """Find everything that is wrong with a folder of captioned pictures.

    Decodes every picture whole: damaged, tiny, huge and odd ones, copies and near-copies, also between train/
    and val/; captions that are missing, too long or for nothing; names and links that lead astray. The
    dataset is only read; parquet and webdataset files and datasets of the Hub are unpacked once, in the
    user's cache. `--fix OUT` writes a clean copy. Exit code 1 if there are problems.
    """
    config = DataCheckConfig.from_dict(given)
    from t2i import datacheck, images
    from t2i.dataset import unpack
    from t2i.naming import check_free, picture_format

    if config.fix is not None:
        datacheck.check_target(Path(config.fix), Path(config.folder))
    if door.sheet is not None:
        picture_format(Path(door.sheet))
        check_free(Path(door.sheet), door.overwrite)
    environment.prepare(offline=config.offline or Path(config.folder).exists())
    packed = datacheck.packed_dataset(config)
    for told in () if packed is None else unpack(packed):
        notice(told)
    checked = datacheck.check(config, _progress(sys.stderr.isatty()), packed)
    report = checked.report
    if config.fix is not None:
        fixed = datacheck.write_fixed(checked, Path(config.fix), config.alpha_background)
        report = dataclasses.replace(report, fixed=fixed)
    if door.sheet is not None:
        pixels = datacheck.sheet(checked)
        if pixels is None:
            notice(f"no pictures with problems: {door.sheet} is not written")
        else:
            images.save(Path(door.sheet), pixels, None, "none", door.overwrite)
    if door.json:
        print(json.dumps(report.to_dict()))
    else:
        for line in report.lines(door.show):
            print(printable(line))
    return 0 if report.clean else 1


def _progress(terminal: bool) -> Any:
    """Counts on one line of a terminal, nothing elsewhere."""

    def show(done: int, total: int) -> None:
        if terminal and (done % 20 == 0 or done == total):
            end = "\r\033[K" if done == total else ""
            print(f"\r\033[K{done} of {total} pictures{end}", end="", file=sys.stderr, flush=True)

    return show


COMMANDS = {"check": check}
