#!/usr/bin/env bash
# Builds the image with buildah and runs it: `make image [BASE=python:3.12-slim-bookworm] [VARIANT=cuda] [TAG=eyeline]`.
# Says its size, the user it runs as, and the seconds until every bundled model serves. Needs no daemon.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v buildah >/dev/null || {
  echo "buildah is not installed: on Debian or Ubuntu, apt install buildah; on Fedora, dnf install buildah (or build with Docker: docker build --tag eyeline .)" >&2
  exit 2
}
tag=${TAG:-eyeline}
build=(--isolation "${ISOLATION:-chroot}" --format docker --tag "$tag" --build-arg "VARIANT=${VARIANT:-cpu}")
[ -z "${BASE:-}" ] || build+=(--build-arg "BASE=$BASE")
buildah bud "${build[@]}" .

container=$(buildah from --pull-never "$tag")
trap 'buildah rm "$container" >/dev/null' EXIT
inside() { buildah run --isolation "${ISOLATION:-chroot}" "$container" -- "$@"; }
size=$(du -sm "$(buildah mount "$container")" | cut -f1)
buildah umount "$container" >/dev/null
echo "image $tag: ${size} MB unpacked, base included"
[ "${VARIANT:-cpu}" != cpu ] || [ "$size" -lt 600 ] || {
  echo "the image may be 600 MB at most: look at what deploy/slim.sh takes out" >&2
  exit 1
}
inside python3 - <<'END'
import os, socket, subprocess, sys, time
print("user:", os.getuid(), "group:", os.getgid())
kept = [path for path in ("/", "/etc", "/usr", "/opt/eyeline", "/opt/eyeline/bin") if os.access(path, os.W_OK)]
if os.getuid() == 0 or kept:
    sys.exit(f"the image runs as uid {os.getuid()} and may write to {kept}; it must be neither root nor able to change itself")
import aiohttp, apsw, asyncpg, confluent_kafka, hiredis, obstore, onnx, PIL.Image, sqlalchemy.dialects.postgresql, zxingcpp
import botocore.session
for service in ("s3", "sqs"):
    botocore.session.get_session().get_service_model(service)
start = time.monotonic()
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = str(probe.getsockname()[1])
eyeline = subprocess.Popen(["eyeline", "up", "--port", port], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
os.environ["EYELINE_HEALTH_URL"] = f"http://127.0.0.1:{port}/readyz"
def healthy():
    return subprocess.run([sys.executable, "/opt/eyeline/healthcheck.py"], stderr=subprocess.DEVNULL).returncode == 0
try:
    while not healthy():
        if eyeline.poll() is not None or time.monotonic() - start > 120:
            sys.exit(f"eyeline up did not become ready in {time.monotonic() - start:.0f} s (exit code {eyeline.poll()})")
        time.sleep(0.1)
    print(f"ready after {time.monotonic() - start:.1f} s")
finally:
    eyeline.terminate()
    print("ended with", eyeline.wait(60))
END
