#!/usr/bin/env bash
# Makes the locks anew (needs uv): pinned and hash-checked, for Linux x86-64 and aarch64 and macOS arm64, without addresses.
set -euo pipefail
cd "$(dirname "$0")/.."
compile() { uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url "$@"; }
compile pyproject.toml requirements/build.in -o requirements/runtime.txt
compile pyproject.toml requirements/build.in requirements/test.in -c requirements/runtime.txt -o requirements/test.txt
compile requirements/soak.in -c requirements/test.txt -o requirements/soak.txt
# For the image: every backend's driver; and what takes onnxruntime's place in the one for CUDA, installed without dependencies.
compile pyproject.toml requirements/build.in --extra postgresql --extra redis --extra s3 --extra sqs --extra kafka -c requirements/runtime.txt -o requirements/cluster.txt
compile requirements/cuda.in -c requirements/cluster.txt -o requirements/cuda.txt
