"""Pixels that never were a file: `python frame_in_memory.py http://127.0.0.1:8080`.

A frame of OpenCV's VideoCapture is sent in the same way, with color="bgr".
"""

import sys

import numpy as np

from eyeline_client import Client


def main(url: str) -> None:
    """Send a bright picture; the pixels travel without loss."""
    frame = np.full((480, 640, 3), 200, np.uint8)
    with Client(url) as eyeline:
        job = eyeline.submit(frame, color="rgb", wait=10)
        result = eyeline.wait(job)
        print(result.status, result.classifications[0].label if result.classifications else result.reason)


if __name__ == "__main__":
    main(sys.argv[1])
