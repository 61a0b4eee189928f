"""``hdrcli doctor``: what this machine has, and what it lacks."""

import os
import platform
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hdrcli import __version__
from hdrcli.cli import display, options

# package, the module it installs, what it is for, the extra that brings it
PACKAGES = (
    ("numpy", "numpy", "everything", None),
    ("numba", "numba", "the inner loops of a merge", None),
    ("opencv-python-headless", "cv2", "alignment and motion", None),
    ("OpenEXR", "OpenEXR", ".exr", None),
    ("simplejpeg", "simplejpeg", "JPEG, and whether it is damaged", None),
    ("imagecodecs", "imagecodecs", "compressed TIFF, AVIF, JPEG XL", None),
    ("tifffile", "tifffile", ".tif", None),
    ("pillow", "PIL", "colour profiles, odd formats", None),
    ("imageio", "imageio", "odd formats", None),
    ("exifread", "exifread", "exposures from EXIF", None),
    ("safetensors", "safetensors", "network weights", None),
    ("torch", "torch", "networks", None),
    ("av", "av", "hdrcli video", "video"),
    ("distributed", "distributed", "batches on many machines", "cluster"),
    ("pillow-heif", "pillow_heif", ".heic", "heif"),
    ("h5py", "h5py", "training on AHDRNet's .h5", "hdf5"),
)
CODECS = ("JPEG8", "PNG", "TIFF", "WEBP", "AVIF", "JPEGXL", "ULTRAHDR")
ENCODERS = ("libx264", "libx265", "libsvtav1", "prores_ks")
CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")


def command(*, json: options.Json = False) -> None:
    """Say which versions, codecs and devices this machine has, and what is missing."""
    report = {
        "hdrcli": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": cpu(),
        "packages": [package(*row) for row in PACKAGES],
        "codecs": codecs(),
        "video_encoders": encoders(),
        "devices": devices(),
    }
    if json:
        display.as_json(report)
    else:
        _show(report)


def package(name: str, module: str, gives: str, extra: str | None) -> dict[str, str | None]:
    """One package: its version, or the problem. Imported, because a wheel may not load."""
    row = {"name": name, "version": None, "for": gives, "extra": extra, "problem": None}
    try:
        loaded = import_module(module)
    except ImportError as err:
        absent = isinstance(err, ModuleNotFoundError) and err.name == module
        return row | {"problem": "not installed" if absent else str(err)}
    try:
        return row | {"version": version(name)}
    except PackageNotFoundError:  # the same module from another wheel, such as opencv-python
        return row | {"version": str(getattr(loaded, "__version__", "unknown"))}


def cpu() -> dict[str, Any]:
    """Cores this process may use, memory in GB, and the features that networks profit from."""
    affinity = getattr(os, "sched_getaffinity", None)
    flags = _cpu_flags()
    return {
        "machine": platform.machine(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "memory_gb": _memory_gb(),
        "features": [name for name in CPU_FEATURES if name in flags],
    }


def _cpu_flags() -> set[str]:
    """What Linux says of the processor; empty elsewhere."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return set()
    lines = (line.partition(":") for line in info.read_text(errors="replace").splitlines())
    return {
        flag
        for key, _, flags in lines
        if key.strip() in ("flags", "Features")
        for flag in flags.split()
    }


def _memory_gb() -> float | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


def codecs() -> dict[str, bool]:
    """Which image codecs the imagecodecs wheel has on this machine."""
    try:
        import imagecodecs
    except ImportError:
        return dict.fromkeys(CODECS, False)
    return {name: bool(getattr(imagecodecs, name).available) for name in CODECS}


def encoders() -> list[str]:
    """Which video encoders PyAV brings."""
    try:
        import av
    except ImportError:
        return []
    return [name for name in ENCODERS if name in av.codecs_available]


def devices() -> list[str]:
    """Where networks can run, as ``--device`` takes it, with the device's own name."""
    try:
        import torch
    except ImportError:
        return []
    found = ["cpu"]
    for i in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(i)
        name = torch.cuda.get_device_name(i)
        found.append(f"cuda:{i} ({name}, {free / 2**30:.1f} of {total / 2**30:.1f} GB free)")
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


def _show(report: dict[str, Any]) -> None:
    machine = report["cpu"]
    features = " ".join(machine["features"]) or "no special features known"
    display.table(
        ("", ""),
        [
            ("hdrcli", report["hdrcli"]),
            ("python", report["python"]),
            ("system", report["system"]),
            ("cpu", f"{machine['machine']}, {machine['cores']} cores, {features}"),
            ("memory", f"{machine['memory_gb']} GB" if machine["memory_gb"] else "unknown"),
            ("devices", ", ".join(report["devices"]) or "none: torch does not load"),
            ("codecs", ", ".join(name for name, there in report["codecs"].items() if there)),
            ("encoders", ", ".join(report["video_encoders"]) or "none"),
        ],
    )
    display.out("")
    display.table(
        ("package", "version", "for"),
        ((row["name"], row["version"] or _lack(row), row["for"]) for row in report["packages"]),
    )


def _lack(row: dict[str, str | None]) -> str:
    cure = f"pip install 'hdrcli[{row['extra']}]'" if row["extra"] else "pip install hdrcli again"
    return f"{row['problem']}: {cure}"
