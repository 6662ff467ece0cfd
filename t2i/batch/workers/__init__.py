"""Batches drawn by several workers: processes of this machine, or actors of a Ray cluster.

    for record in draw_shared(config, jobs, folder, manifest, limits, tell, warn):
        record["file"], record["status"]

The parent owns the plan, the manifest and the folder (`sharing`). A `worker` keeps a model, draws what it is
told and hands back the bytes of picture files; it writes nothing. `processes` and `ray_actors` start workers
and carry messages; what goes to a worker is JSON.
"""

from t2i.batch.workers.crews import check_crew, count_workers, draw_shared
from t2i.batch.workers.sharing import WorkersLost

__all__ = ["WorkersLost", "check_crew", "count_workers", "draw_shared"]
