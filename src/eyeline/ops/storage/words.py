"""The storage report and what is to be erased, in words."""

from collections.abc import Iterator
from typing import Any

from eyeline.ops.storage.chart import bar, headline, size
from eyeline.ops.storage.erase import Found


def told(report: dict[str, Any], price: float) -> list[list[str]]:
    """What, how much, and what that means."""
    return [
        *_kept(report),
        *_saved(report["saved"]),
        *_costs(report["per_million"], price),
        ["forecast", headline(report), ""],
    ]


def _kept(report: dict[str, Any]) -> Iterator[list[str]]:
    if report["at"] is None:
        yield ["kept", "not counted yet", "the alerts role counts while it runs, first at its start"]
        return
    pictures = report["pictures"]
    sites = ", ".join(f"{site} {size(count)}" for site, count in sorted(pictures["by_site"].items()))
    yield ["pictures", size(pictures["bytes"]), f"{pictures['blobs']} files; {sites}" if sites else "none"]
    yield ["database", size(report["database"]), f"counted at {report['at'][:19]} UTC"]
    if report["disk"] is not None:
        disk = report["disk"]
        yield ["disk", size(disk["free"]) + " free", bar(disk["total"] - disk["free"], disk["total"])]
    yield ["legal holds", str(report["holds"]), "in force"]


def _saved(saved: dict[str, Any]) -> Iterator[list[str]]:
    same, near, gone = saved["duplicates"], saved["near_duplicates"], saved["retention"]
    yield ["saved by duplicates", size(same["bytes"]), f"{same['images']} images, {same['seconds']:.0f} s of work"]
    yield ["saved by near-duplicates", f"{near['seconds']:.0f} s of work", f"{near['images']} images"]
    for row in saved["reencoding"]:
        share = 1 - row["after"] / row["before"] if row["before"] else 0.0
        words = f"{share:.0%} of {row['images']} pictures: {row['kind']}"
        yield ["saved by encoding anew", size(row["before"] - row["after"]), words]
    words = f"{gone['originals']} originals, evidence of {gone['evidence']}, {gone['results']} results"
    yield ["let go by retention", size(gone["bytes"]), words]


def _costs(million: dict[str, Any] | None, price: float) -> Iterator[list[str]]:
    if million is None:
        return
    months = million["gigabyte_months"]
    cost = f"; {months * price:.2f} at {price:g} for a gigabyte and month" if price else ""
    yield ["a million images", size(million["bytes"]), f"as they come; {million['seconds'] / 3600:.1f} h of work"]
    yield ["kept for a year", f"{months:g} GB-months", f"as retention says{cost}"]


def found_words(found: Found, *, done: bool) -> Iterator[str]:
    """What was, or would be, erased."""
    cameras = ", ".join(f"{name} {count}" for name, count in sorted(found.cameras.items()))
    if found.ids and found.first is not None and found.last is not None:
        span = f"{found.first.isoformat()[:19]} to {found.last.isoformat()[:19]} UTC"
        yield f"{'erased' if done else 'to erase'}: {len(found.ids)} results ({cameras}), captured {span}"
        pictures = f"{found.pictures} pictures ({size(found.bytes)})"
        yield f"  with their labels, codes, alerts, notifications, items, cached answers and {pictures}"
        yield "  a picture that another result shows stays"
    else:
        yield "nothing to erase"
    for hold, count in found.held.items():
        yield f"stay: {count} results under the legal hold {hold}"
    if found.unfinished:
        yield f"not looked at: {found.unfinished} unfinished jobs; run it again when they are done"
    if found.ids and not done:
        yield "Nothing was changed. Say --yes to erase them; there is no way back, and backups made before still hold them."
