"""Batches: the pictures of a prompt file, drawn into a folder that remembers what is done.

    with open_manifest(folder) as manifest:
        jobs = plan_batch(file.entries, manifest.records, folder)
        todo = [job for job in jobs if not is_done(job, manifest.records, folder)]
        for record in draw_batch(todo, folder, manifest):
            record["file"], record["status"]

`plan` gives every picture an id and a file name, `estimating` says how long it will take, `refusals` finds
what cannot be drawn here, `manifest` keeps what became of it, `drawing` draws, or `workers` do, on several
devices or machines. `reporting` tells of it: `report` (HTML by `page`, contact sheets by `sheet`), `junit`,
and `verdicts` on the expected pictures of a `golden` file.
Nothing heavy is imported before the first picture is drawn.
"""

from t2i.batch.drawing import Limits, draw_batch
from t2i.batch.estimating import Estimate, estimate
from t2i.batch.manifest import (
    Manifest,
    Record,
    Records,
    keep_run_seed,
    kept_run_seed,
    open_manifest,
    read_records,
)
from t2i.batch.plan import BatchJob, in_shard, is_done, plan_batch
from t2i.batch.refusals import find_refusals, with_refusals
from t2i.batch.reporting import Reporting
from t2i.batch.workers import WorkersLost, check_crew, count_workers, draw_shared

__all__ = [
    "BatchJob", "Estimate", "Limits", "Manifest", "Record", "Records", "Reporting", "WorkersLost",
    "check_crew", "count_workers", "draw_batch", "draw_shared", "estimate", "find_refusals", "in_shard",
    "is_done", "keep_run_seed", "kept_run_seed", "open_manifest", "plan_batch", "read_records",
    "with_refusals",
]  # fmt: skip
