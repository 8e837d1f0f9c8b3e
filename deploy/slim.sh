#!/bin/sh
# Takes out of a virtual environment what a running Eyeline never reads: build tools, other packages' tests and type
# stubs, OpenCV's face cascades, ONNX Runtime's tools for making models and its second library (for programs in C), lexers, and the descriptions of
# the AWS services that are not called.
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
find botocore/data -mindepth 1 -maxdepth 1 -type d ! -name sqs ! -name sts ! -name sso ! -name sso-oidc -exec rm -rf {} +
