"""The architectures that t2i's own denoising loop runs: one class each, one row each in `FAMILIES`."""

from __future__ import annotations

from t2i.families.clip import ClipFamily, PocketFamily, Sd1Family, Sd2Family
from t2i.families.parts import Denoiser, Family, Parts
from t2i.families.prompts import Explanation
from t2i.families.sdxl import SdxlFamily

FAMILIES: dict[str, type[ClipFamily]] = {
    family.name: family for family in (Sd1Family, Sd2Family, SdxlFamily, PocketFamily)
}

__all__ = ["FAMILIES", "Denoiser", "Explanation", "Family", "Parts"]
