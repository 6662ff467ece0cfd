"""Batches that no model drew: jobs, their pictures with recipes, and the lines of their manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from t2i import images, recipes
from t2i.batch import BatchJob
from t2i.batch.manifest import Record
from t2i.config import GenerateConfig
from t2i.durable import sha256_file

CONFIG = GenerateConfig(
    steps=2, guidance_scale=3.0, scheduler="ddim", width=16, height=8, model="./models/tiny", seed=None
)
RUNTIME = {"device": "cpu", "dtype": "fp32", "threads": 1, "versions": {"torch": "2.13.0"}}
ELSEWHERE = {**RUNTIME, "versions": {"torch": "2.14.0"}}


def job(line: int, prompt: str, seed: int = 7, file: str | None = None, **changes: Any) -> BatchJob:
    """A picture that a prompt file asks for."""
    config = CONFIG.replace(**changes)
    digest = hashlib.sha256(f"{prompt}{seed}{config}".encode("utf-8", "replace")).hexdigest()
    name = file or f"{line:05d}-{seed}.png"
    return BatchJob(digest, line, line, prompt, prompt, seed, config, name, True, None)


def pixels(red: int = 200, green: int = 100, blue: int = 50) -> np.ndarray:
    """A picture of one colour, uint8 (8, 16, 3)."""
    return np.full((8, 16, 3), (red, green, blue), np.uint8)


def draw(
    folder: Path,
    job: BatchJob,
    shown: np.ndarray,
    runtime: Mapping[str, Any] = RUNTIME,
    metadata: str = "full",
) -> Record:
    """Write a picture as a batch does; returns its line of the manifest."""
    config = job.config.replace(prompts=(job.prompt,), seed=job.seed)
    placed = recipes.Placed(job.index, job.seed, (1, 4, 1, 2), 0)
    model = {"id": config.model, "family": "pocket", "files": {"unet/a.safetensors": "0" * 64}}
    recipe = recipes.make_recipe(config, placed, model, runtime, images.pixels_sha256(shown))
    path = folder / job.file
    images.save(path, shown, recipe, metadata, overwrite=True)
    return record(job, file=job.file, sha256=sha256_file(path))


def record(job: BatchJob, status: str = "done", **changes: Any) -> Record:
    """A line of the manifest."""
    values = {"job": job.id, "status": status, "line": job.line, "seed": job.seed, "prompt": job.prompt}
    return {**values, "file": None, "sha256": None, "seconds": 0.25, "error": None, **changes}
