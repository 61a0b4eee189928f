"""HDR video from clips whose frames alternate between exposures.

A chain of generators: decode, follow the pattern, window, merge; then every output encodes in a
thread of its own. Decoding runs ahead in a thread too. Memory does not depend on the length.
"""

from hdrcli.video.clip import Clip, open_clip
from hdrcli.video.encode import EncodeOptions, Target
from hdrcli.video.exposures import Pattern
from hdrcli.video.run import VideoOptions, VideoOutcome, survey, video_file

__all__ = [
    "Clip",
    "EncodeOptions",
    "Pattern",
    "Target",
    "VideoOptions",
    "VideoOutcome",
    "open_clip",
    "survey",
    "video_file",
]
