"""Pictures and their files: pixels and recipe in, one whole file out, and back.

The recipe stands in a PNG as text `t2i` (JSON) and `parameters` (A1111), in JPEG and WebP as XMP `t2i:recipe`
and EXIF UserComment. XMP says in every format that a trained model made the picture. Reading a recipe
decodes no pixels and needs neither numpy nor torch. This is the only place of t2i that opens a picture
that t2i made; `dataset` opens those that people bring for training.
"""

from __future__ import annotations

import hashlib
import io
import math
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

from t2i import durable, recipes
from t2i.errors import StorageError, UsageError
from t2i.naming import check_free, picture_format
from t2i.version import __version__

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image as PillowImage

METADATA = ("full", "minimal", "none")
MAX_PIXELS = 64_000_000
LOSSY = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"quality": 95, "method": 4}}
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
IPTC_EXT = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
T2I_NAMESPACE = "urn:t2i:recipe:1"
USER_COMMENT, EXIF_IFD, ORIENTATION = 0x9286, 0x8769, 0x0112
# IEC 61966-2-1 as PNG writes it: white, red, green and blue, x and y each.
SRGB = {"gamma": (0.45455,), "chromaticity": (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)}


@dataclass(frozen=True)
class Metadata:
    """What a picture file says about itself.

    Args:
        format: PNG, JPEG or WEBP.
        size: Width and height in pixels.
        recipe: t2i's recipe, if it has one.
        parameters: The A1111 text, if it has one.
    """

    format: str
    size: tuple[int, int]
    recipe: recipes.Recipe | None
    parameters: str | None


def save(
    path: Path,
    pixels: np.ndarray,
    recipe: Mapping[str, Any] | None,
    metadata: str = "full",
    overwrite: bool = False,
) -> None:
    """Write a picture with its recipe, whole or not at all.

    Args:
        path: Ends in .png, .jpg, .jpeg or .webp.
        pixels: uint8, (H, W, 3).
        recipe: From `recipes.make_recipe`; None writes what `minimal` writes.
        metadata: "full"; "minimal" says only that a model made it and which t2i; "none" says nothing.
        overwrite: Whether a file of that name may be replaced.

    Raises:
        StorageError: The name is taken, no space, no permission, or the recipe is too long.
        UsageError: Unknown suffix.
    """
    check_free(path, overwrite)
    data = encode(pixels, picture_format(path), recipe, metadata)
    durable.write_bytes(path, data, overwrite)


def encode(
    pixels: np.ndarray, format: str, recipe: Mapping[str, Any] | None = None, metadata: str = "minimal"
) -> bytes:
    """The bytes of a picture file; equal arguments give equal bytes (no time, no host in them)."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    if metadata not in METADATA:
        raise UsageError(f"--metadata {metadata}: not one of {', '.join(METADATA)}")
    text = recipes.dumps(recipe) if recipe is not None and metadata == "full" else None
    parameters = recipes.to_parameters(recipe) if recipe is not None and text else None
    xmp = _xmp(None if format == "PNG" else text) if metadata != "none" else None
    options: dict[str, Any] = dict(LOSSY.get(format, {}))
    if format == "PNG":
        chunks = PngInfo()
        for key, value in (("t2i", text), ("parameters", parameters), ("XML:com.adobe.xmp", xmp)):
            if value is not None:
                chunks.add_itxt(key, value)
        options["pnginfo"] = chunks
    else:
        if parameters is not None:
            exif = Image.Exif()
            exif.get_ifd(EXIF_IFD)[USER_COMMENT] = b"UNICODE\0" + parameters.encode("utf-16-be", "replace")
            options["exif"] = exif
        if xmp is not None:
            options["xmp"] = xmp.encode()
    buffer = io.BytesIO()
    try:
        Image.fromarray(pixels).save(buffer, format, **options)
    except ValueError as error:
        raise StorageError(
            f"the recipe does not fit into a {format} file", "use .png or --metadata minimal"
        ) from error
    return buffer.getvalue()


def read_metadata(path: Path) -> Metadata:
    """What the file says about itself, without decoding its pixels.

    Raises:
        StorageError: No such file, not a PNG, JPEG or WebP, or a damaged recipe.
    """
    with open_image(path) as image:
        xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
        text = image.info.get("t2i") or _recipe_in_xmp(xmp)
        parameters = image.info.get("parameters") or _user_comment(image)
        try:
            recipe = recipes.loads(text) if isinstance(text, str) else None
        except StorageError as error:
            raise error.named(path) from error
        return Metadata(
            str(image.format), image.size, recipe, parameters if isinstance(parameters, str) else None
        )


def read_recipe(path: Path) -> recipes.Recipe:
    """The recipe that t2i wrote into a picture.

    Raises:
        StorageError: As `read_metadata`, or there is none.
    """
    recipe = read_metadata(path).recipe
    if recipe is None:
        raise StorageError(
            f"{path} carries no recipe of t2i",
            "it was made by another program, or with --metadata minimal or none",
        )
    return recipe


def read_pixels(path: Path) -> np.ndarray:
    """The pixels of a picture, uint8 (H, W, 3).

    Raises:
        StorageError: Missing, damaged or cut off.
    """
    import numpy as np

    with open_image(path) as image:
        try:
            return np.array(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            raise StorageError(f"{path} is damaged: {error}") from error


def unlike_drawn(path: Path) -> str:
    """What a picture file has besides the RGB pixels that t2i writes and `read_pixels` gives; "" if nothing.

    Transparency, further frames, a rotation by EXIF and another meaning of the colours than sRGB change what
    is seen, and no RGB value.

    Raises:
        StorageError: As `open_image`.
    """
    with open_image(path) as image:
        if image.mode != "RGB" or "transparency" in image.info:
            return f"its pixels are {image.mode}" + " with transparency" * ("transparency" in image.info)
        frames = getattr(image, "n_frames", 1)
        if frames != 1:
            return f"it has {frames} frames"
        try:
            turned = image.getexif().get(ORIENTATION, 1)
        except (OSError, ValueError, SyntaxError, KeyError, TypeError):
            return "its EXIF is damaged"
        return f"its EXIF orientation is {turned}" if turned != 1 else _other_colours(path, image)


def through_file(pixels: np.ndarray, format: str) -> np.ndarray:
    """Pixels as they come back from a file of `format`: JPEG and WebP lose some, each time the same."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(encode(pixels, format)), formats=[format]) as image:
        return np.array(image.convert("RGB"))


def open_image(path: Path) -> PillowImage.Image:
    """Open a PNG, JPEG or WebP by content, refusing anything else and anything above 64 megapixels.

    Raises:
        StorageError: With one line that says which.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is lower
            image = Image.open(path, formats=["PNG", "JPEG", "WEBP"])
    except FileNotFoundError:
        raise StorageError(f"{path} does not exist") from None
    except UnidentifiedImageError:
        raise StorageError(f"{path} is not a PNG, JPEG or WebP picture") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise StorageError(f"{path} cannot be read: {error}") from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise StorageError(
            f"{path} has {image.width} x {image.height} pixels, more than {MAX_PIXELS // 10**6} million"
        )
    return image


def pixels_sha256(pixels: np.ndarray) -> str:
    """SHA-256 of the uint8 RGB bytes, row by row."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two uint8 pictures of one shape in dB; infinite when equal."""
    import numpy as np

    error = float(np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def grid(pictures: Sequence[np.ndarray], columns: int | None = None) -> np.ndarray:
    """One sheet of several pictures, row by row, white where one is missing or smaller.

    Args:
        pictures: uint8, (H, W, 3) each.
        columns: Pictures in a row; default: a sheet that is about square.
    """
    import numpy as np

    columns = columns or math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    height = max(picture.shape[0] for picture in pictures)
    width = max(picture.shape[1] for picture in pictures)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet


def _other_colours(path: Path, image: PillowImage.Image) -> str:
    """What makes the RGB values mean other colours than those of sRGB; "" if nothing does.

    The gamma and the primaries of sRGB itself, as other programs add them, change nothing.
    """
    if "icc_profile" in image.info:
        return "it has a colour profile"
    if image.format == "PNG" and b"cICP" in _png_chunks(path):  # Pillow does not read it, browsers do
        return "it says what its colours mean (cICP)"
    for name, usual in SRGB.items():
        found = image.info.get(name)
        values = found if isinstance(found, tuple) else (found,)
        if found is not None and any(abs(one - two) > 1e-3 for one, two in zip(values, usual, strict=True)):
            return f"its {name} is {', '.join(f'{value:g}' for value in values)}"
    return ""


def _png_chunks(path: Path) -> list[bytes]:
    """The names of the chunks of a PNG file, in order."""
    names = []
    with open(path, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            names.append(head[4:])
            file.seek(int.from_bytes(head[:4]) + 4, 1)  # the data and its checksum
    return names


def _xmp(recipe_text: str | None) -> str:
    """An XMP packet that says what made the picture, and holds the recipe where there is no better place."""
    carried = f" t2i:recipe={quoteattr(recipe_text)}" if recipe_text else ""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">'
        f'<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="{IPTC_EXT}" '
        f'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:t2i="{T2I_NAMESPACE}" '
        f'Iptc4xmpExt:DigitalSourceType="{recipes.DIGITAL_SOURCE_TYPE}" '
        f'xmp:CreatorTool="t2i {__version__}"{carried}/></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    )


def _recipe_in_xmp(xmp: bytes | str) -> str | None:
    """The `t2i:recipe` attribute; Pillow's own reader needs a package that may be missing."""
    text = xmp.decode("utf-8", "replace") if isinstance(xmp, bytes) else xmp
    if T2I_NAMESPACE not in text or "<!" in text:  # no DTD, so no entities to expand
        return None
    try:
        root = ElementTree.fromstring(text.strip("\0\ufeff \n"))
    except ElementTree.ParseError:
        return None
    return next((item.get(f"{{{T2I_NAMESPACE}}}recipe") for item in root.iter(f"{{{RDF}}}Description")), None)


def _user_comment(image: PillowImage.Image) -> str | None:
    """The A1111 text of a JPEG or WebP."""
    try:
        comment = image.getexif().get_ifd(EXIF_IFD).get(USER_COMMENT)
    except (OSError, ValueError, SyntaxError, KeyError, TypeError):
        return None  # a damaged EXIF block says nothing, and the picture may still be fine
    if not isinstance(comment, bytes) or not comment.startswith(b"UNICODE\0"):
        return None
    return comment[8:].decode("utf-16-be", "replace")
