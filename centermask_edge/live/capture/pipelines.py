"""GStreamer pipelines for the decoder and the cameras of a Jetson, as text.

The elements are those of NVIDIA's L4T: ``nvv4l2decoder`` decodes in hardware, ``nvarguscamerasrc``
reads a CSI camera, ``nvvidconv`` brings a picture from the hardware's memory to the CPU's.
"""

from __future__ import annotations

from enum import Enum

from centermask_edge.errors import MissingPackageError
from centermask_edge.live.capture.gst import has_element, load_gst

_HARDWARE = "nvv4l2decoder"
# The hardware converts to 4 bytes a pixel only; the fourth is left out on the CPU.
_TO_CPU = "nvvidconv ! video/x-raw,format=BGRx"


class Codec(str, Enum):
    """What a camera sends, by the names of GStreamer's elements."""

    H264 = "h264"
    H265 = "h265"


def jetson_rtsp(address: str, codec: Codec | None = None, *, latency_ms: int = 0) -> str:
    """The pipeline of a network camera, decoded by a Jetson's hardware.

    Args:
        address: ``rtsp://...``, with credentials where the camera wants them.
        codec: what it sends; without it, GStreamer finds out.
        latency_ms: jitter buffer; over TCP, packets come in order and need none.

    >>> jetson_rtsp("rtsp://10.0.0.7/live", Codec.H265).split(" ! ")[1:4]
    ['rtph265depay', 'h265parse', 'nvv4l2decoder']
    """
    unpack = "parsebin" if codec is None else f"rtp{codec.value}depay ! {codec.value}parse"
    return (
        f"rtspsrc location={_quoted(address)} protocols=tcp latency={latency_ms}"
        f" ! {unpack} ! {_HARDWARE} ! {_TO_CPU}"
    )


def jetson_csi(sensor: int = 0, *, width: int = 1920, height: int = 1080, rate: int = 30) -> str:
    """The pipeline of a camera on a Jetson's CSI connector.

    Args:
        sensor: its number, from 0.
        width: pixels; with ``height`` and ``rate`` one of the sensor's modes.
        height: pixels.
        rate: frames per second.

    >>> jetson_csi(1).split(" ! ")[0]
    'nvarguscamerasrc sensor-id=1'
    """
    return (
        f"nvarguscamerasrc sensor-id={sensor}"
        f" ! video/x-raw(memory:NVMM),width={width},height={height},framerate={rate}/1,format=NV12"
        f" ! {_TO_CPU}"
    )


def why_no_hardware(address: str) -> str:
    """Why a stream cannot be decoded by hardware here, or an empty text where it can."""
    end = "; FFmpeg decodes in software"
    if not address.lower().startswith(("rtsp://", "rtsps://")):
        return f"hardware decodes rtsp addresses only{end}"
    try:
        gst = load_gst()
    except MissingPackageError:
        return f"hardware decoding needs GStreamer for Python, which is not installed{end}"
    if not has_element(gst, _HARDWARE):
        return f"GStreamer has no {_HARDWARE} here{end}"
    return ""


def _quoted(text: str) -> str:
    """The text as one value of a pipeline, whatever is in it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
