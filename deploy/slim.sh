#!/bin/sh
# Takes out of a virtual environment what a running Eyeline never reads: build tools, other packages' tests and type
# stubs, OpenCV's face cascades, ONNX Runtime's tools for making models and its second library (for programs in C), lexers, other
# databases' dialects, the descriptions of the AWS services that are not called, and, where `strip` is there, what only a debugger
# reads in extension modules (60 MB of uvloop, asyncpg, SQLAlchemy and others).
set -eu
venv=$1
packages=$(echo "$venv"/lib/python3*/site-packages)
if [ -x "$venv/bin/pip" ]; then
  "$venv/bin/pip" uninstall --quiet --yes hatchling editables pathspec pluggy trove-classifiers setuptools pip
fi
cd "$packages"
find . -depth -type d \( -name tests -o -name test \) ! -path "./eyeline/*" -exec rm -rf {} +
find . -type f \( -name "*.pyi" -o -name "*.pxd" -o -name "*.h" -o -name "*.hpp" -o -name "*.a" -o -name "*.c" -o -name "*.pyx" \) -delete
rm -rf cv2/data/*.xml onnxruntime/transformers onnxruntime/quantization onnxruntime/datasets onnxruntime/tools onnxruntime/capi/libonnxruntime.so.*
find pygments/lexers -type f ! -name "__init__*" ! -name "_mapping*" ! -name "python*" ! -name "special*" -delete
find botocore/data -mindepth 1 -maxdepth 1 -type d ! -name sqs ! -name s3 ! -name sts ! -name sso ! -name sso-oidc -exec rm -rf {} +
rm -rf sqlalchemy/testing sqlalchemy/dialects/mysql sqlalchemy/dialects/mssql sqlalchemy/dialects/oracle apsw/sqlite_extra_binaries numpy/f2py
# modules alone: the libraries beside them were moved about by their packagers, and strip may tear those
if command -v strip >/dev/null; then
  find . -name "*.cpython-*.so" -exec strip --strip-unneeded {} +
fi
