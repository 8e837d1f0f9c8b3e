"""One picture in, one result out: `python submit_and_wait.py http://127.0.0.1:8080 parcel.jpg`."""

import sys

from eyeline_client import Client


def main(url: str, path: str) -> None:
    """Send the picture, wait, print what was found."""
    with Client(url) as eyeline:
        job = eyeline.submit(path, ref="example", meta={"program": "submit_and_wait"})
        result = eyeline.wait(job, timeout=30)
        print(result.status, result.reason or "", result.id)
        for found in result.classifications:
            print(f"{found.label} {found.score:.2f}")
        for box in result.detections:
            print(f"{box.label} {box.score:.2f} at {box.box}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
