"""The live stream: `python follow_events.py http://127.0.0.1:8080 [--after N] [--count N]`.

Keep the number of the last event that was dealt with; started with it, this goes on exactly there.
"""

import argparse
from itertools import islice

from eyeline_client import Client


def main(url: str, after: int | None, count: int | None) -> None:
    """Print events until interrupted, or until there were `count`."""
    with Client(url) as eyeline:
        for event in islice(eyeline.events(after=after), count):
            if event.kind == "resync":
                print(f"{event.seq} too far behind: load the lists anew")
            elif event.kind == "result":
                print(f"{event.seq} result {event.result.id} {event.result.status}")
            else:
                print(f"{event.seq} {event.kind} {event.body}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--after", type=int)
    parser.add_argument("--count", type=int)
    main(**vars(parser.parse_args()))
