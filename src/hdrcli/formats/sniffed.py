"""What a file is, by its first bytes."""

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (8, b"CR\x02", "raw"),  # Canon CR2, before TIFF
    (0, b"II*\0", "tiff"),
    (0, b"MM\0*", "tiff"),
    (0, b"II+\0", "tiff"),
    (0, b"MM\0+", "tiff"),
    (0, b"\x76\x2f\x31\x01", "exr"),
    (0, b"#?", "hdr"),
    (8, b"WEBP", "webp"),
    (8, b"AVI ", "video"),
    (0, b"BM", "bmp"),
    (0, b"GIF8", "gif"),
    (0, b"\0\0\0\x0cjP  ", "jp2"),
    (0, b"\xff\x4f\xff\x51", "jp2"),
    (0, b"\0\0\0\x0cJXL ", "jxl"),
    (0, b"\xff\x0a", "jxl"),
    (0, b"FUJIFILMCCD-RAW", "raw"),
    (0, b"IIU\0", "raw"),
    (0, b"IIRO", "raw"),
    (0, b"IIRS", "raw"),
    (0, b"MMOR", "raw"),
    (0, b"FOVb", "raw"),
    (0, b"\x1a\x45\xdf\xa3", "video"),
    (0, b"8BPS", "psd"),
    (0, b"%PDF", "pdf"),
    (0, b"PK\x03\x04", "archive"),
    (0, b"\x1f\x8b", "archive"),
)
_BRANDS = {
    "heif": (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"),
    "avif": (b"avif", b"avis"),
    "raw": (b"crx ",),
}

_CONVERT = "convert it to JPEG, PNG, TIFF or EXR first"
REFUSED = {
    "empty": ("an empty file", "copy it again from the camera or the source"),
    "text": ("text", "name the photographs, not a list or a page about them"),
    "raw": (
        "a camera's raw file",
        "develop it to 16-bit TIFF in a raw converter, all of a bracket alike",
    ),
    "video": ("a video", "hdrcli video reads videos"),
    "jxl": ("JPEG XL, which is not read", _CONVERT),
    "psd": ("a Photoshop file", "save it as TIFF"),
    "pdf": ("a PDF", _CONVERT),
    "archive": ("an archive", "unpack it first"),
}


def kind_of_head(head: bytes) -> str:
    """Name the kind of a file that begins with these bytes (512 are enough)."""
    if not head:
        return "empty"
    for at, magic, kind in _MAGIC:
        if head[at : at + len(magic)] == magic:
            return kind
    if head[4:8] == b"ftyp":
        return next((kind for kind, brands in _BRANDS.items() if head[8:12] in brands), "video")
    return "text" if _is_text(head) else "unknown"


def _is_text(head: bytes) -> bool:
    if head[:1] == b"P" and head[1:2] in b"1234567Ff":  # Netpbm is text in part
        return False
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as err:
        if err.start < len(head) - 3:  # else only the last letter is cut
            return False
        text = head[: err.start].decode("utf-8")
    return all(char.isprintable() or char in "\t\r\n\f" for char in text)
