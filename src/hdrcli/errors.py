"""The errors a user can cause and cure.

* HdrcliError        1  never raised itself
  * InputError       3  a file, or a set of files, that cannot be used
    * FormatError    3  the bytes of one file
    * BracketError   3  frames that do not belong together
  * SetupError       4  the machine lacks something
    * WeightsError   4  a weight file is missing or damaged
    * DeviceError    4  no such device, or no memory left on it
    * ResourceError  4  disk, memory or an optional package is missing
  * BatchError       5  some items failed, the others are written

The number is the exit code. 2 is Typer's, for a wrong command line; an exception of
any other kind is a bug, and keeps its traceback.
"""

import struct
import zlib
from typing import ClassVar

# What other people's readers throw at damaged bytes, found by feeding them damaged bytes.
FOREIGN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


class HdrcliError(Exception):
    """Base of every error shown to the user as one line, without a traceback."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class InputError(HdrcliError):
    """The input cannot be used."""

    exit_code = 3


class FormatError(InputError):
    """A file is not what its format says it must be."""


class BracketError(InputError):
    """The frames do not make one bracket."""


class SetupError(HdrcliError):
    """The machine lacks something the command needs."""

    exit_code = 4


class WeightsError(SetupError):
    """A weight file is missing, or its checksum is wrong."""


class DeviceError(SetupError):
    """The device does not exist, or has no memory left."""


class ResourceError(SetupError):
    """Disk space, memory, or a codec or package that is not installed."""


class BatchError(HdrcliError):
    """Some items of a batch failed."""

    exit_code = 5
