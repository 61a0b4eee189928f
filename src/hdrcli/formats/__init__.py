"""Pixels on disk: ``read`` goes by content, ``write`` by suffix."""

from hdrcli.formats.outputs import (
    OUTPUTS,
    Output,
    WriteOptions,
    check_output,
    for_output,
    quantised,
    write,
    write_display_codes,
)
from hdrcli.formats.registry import read, read_all, read_with, sniff

__all__ = [
    "OUTPUTS",
    "Output",
    "WriteOptions",
    "check_output",
    "for_output",
    "quantised",
    "read",
    "read_all",
    "read_with",
    "sniff",
    "write",
    "write_display_codes",
]
