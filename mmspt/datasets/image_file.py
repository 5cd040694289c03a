"""What the bytes of an image file tell before they are decoded."""
import io
import struct

from PIL import Image

MAX_PIXELS = 89_478_485
"""Images with more pixels than this are taken for decompression bombs (Pillow's own bound for its warning)."""
JPEG, PNG = b'\xff\xd8', b'\x89PNG\r\n\x1a\n'
# the kinds of markers before a JPEG's first scan (ITU-T T.81, table B.1); with any other, libjpeg refuses the file
FRAMES = frozenset(range(0xc0, 0xd0)) - {0xc4, 0xc8, 0xcc}
BARE = frozenset([0x01, *range(0xd0, 0xd8)])  # without a length or anything else after them
SEGMENTS = frozenset([0xc4, 0xcc, 0xdb, 0xdc, 0xdd, *range(0xe0, 0xf0), 0xfe])


def check_size(content: bytes, max_pixels: int) -> None:
    """Raise ValueError if the header promises more than ``max_pixels``, or is that of a JPEG and gives no size.

    Other files whose header cannot be read are let pass: they are damaged, or of a kind that Pillow does not know. Of
    formats other than JPEG and PNG, Pillow itself refuses more than 178,956,970 (DecompressionBombError).
    """
    size = read_size(content)
    if size is None and content.startswith(JPEG):
        raise ValueError('its header is damaged: no size can be found in this JPEG')
    if size is not None and size[0] * size[1] > max_pixels:
        raise ValueError(f'{size[0]:,} x {size[1]:,} pixels are over max_pixels={max_pixels:,}: a decompression bomb?')


def read_size(content: bytes) -> tuple[int, int] | None:
    """Width and height; None if the header does not say."""
    try:
        if content.startswith(PNG):
            return struct.unpack_from('>II', content, 16)
        formats = None
        if content.startswith(JPEG):  # by hand: Pillow takes a tenth of the time of decoding
            size = _jpeg_size(content)
            if size is not None:
                return size
            formats = ('JPEG',)
        with Image.open(io.BytesIO(content), formats=formats) as image:
            return image.size
    except Image.DecompressionBombError:
        raise
    except Exception:  # a damaged header can raise anything; the decoder will say what is wrong
        return None


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    """None where anything is unusual: a decoder may go on elsewhere than this walk, and find another size."""
    at = 2
    while at + 9 <= len(content) and content[at] == 0xff:
        marker = content[at + 1]
        length = int.from_bytes(content[at + 2:at + 4], 'big')
        if marker == 0xff:  # a fill byte
            at += 1
        elif marker in BARE:
            at += 2
        elif marker in FRAMES:
            height, width = struct.unpack_from('>HH', content, at + 5)
            return width, height
        elif marker in SEGMENTS and length >= 2:
            at += 2 + length
        else:
            return None
    return None


def check_end(content: bytes) -> None:
    """Raise OSError if a JPEG is cut off; OpenCV before 5 fills what is missing with grey and says nothing.

    A whole JPEG has no start of a scan after the last end of an image, thumbnails and second pictures included. Where
    it has, it may be what follows the picture that is cut, so Pillow is asked. Cut-off files of other formats are
    refused by every decoder. A JPEG that lacks no more than the two bytes of its end is refused too: Pillow does not
    decode it, nor does OpenCV 5, and nothing in it tells that the picture is whole.
    """
    if not content.startswith(JPEG):
        return
    end = content.rfind(b'\xff\xd9')
    if end < 0 or content.find(b'\xff\xda', end) >= 0:
        with Image.open(io.BytesIO(content)) as image:
            image.load()


def is_deep(content: bytes) -> bool:
    """Whether an image has one channel of more than 8 bits, which Pillow's conversion to RGB clips at 255.

    Of these OpenCV scales 16-bit integers; 32-bit integers and floats, which have no range to scale from, it refuses as
    colour, and reads with ``color_type='unchanged'``.
    """
    with Image.open(io.BytesIO(content)) as image:
        return image.mode[0] in 'IF'


def explain(error: Exception) -> str:
    """Kind and text of a decoder's error in one line, without Pillow's addresses in memory."""
    return f'{type(error).__name__}: {" ".join(str(error).split("<_io.")[0].split())[:200]}'
