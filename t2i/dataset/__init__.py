"""A folder of captioned pictures as tensors. Knows nothing of models.

`find_packed` and `unpack` make a folder of what is none; `read_folder` finds pictures and captions;
`load_pictures` decodes each once into a cache on disk and gives `Pictures`: which rows a step sees, their
pixels, captions and sizes, in buckets of one size each. What cannot be used is refused with one line that
names the file, or left out and listed.
"""

from t2i.dataset.buckets import BucketPlan, Turns, batch_rows, default_bucket_step, entries_of
from t2i.dataset.captions import Example, Fault, caption_from_name
from t2i.dataset.decoding import FORMATS, PIXEL_LIMIT, SUFFIXES, BadPicture, decode
from t2i.dataset.folder import ImageFolder, read_folder
from t2i.dataset.packed import Packed, find_packed, read_unpacked, unpack
from t2i.dataset.pictures import Pictures, WithMirrored, load_pictures
from t2i.dataset.records import Columns
from t2i.dataset.shared_tables import Crew, shared_table
from t2i.dataset.tables import (
    HASHES,
    cached_table,
    dataset_key,
    file_digests,
    load_pixels,
    pixels_key,
    to_pixels,
)

__all__ = [
    "FORMATS", "HASHES", "PIXEL_LIMIT", "SUFFIXES", "BadPicture", "BucketPlan", "Columns", "Crew", "Example",
    "Fault", "ImageFolder", "Packed", "Pictures", "Turns", "WithMirrored", "batch_rows", "cached_table",
    "caption_from_name", "dataset_key", "decode", "default_bucket_step", "entries_of", "file_digests",
    "find_packed", "load_pictures", "load_pixels", "pixels_key", "read_folder", "read_unpacked",
    "shared_table", "to_pixels", "unpack",
]  # fmt: skip
