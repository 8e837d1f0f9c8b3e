# One image for every role: `eyeline up` unless a command is named (gateway, worker, inference, alerts, camera NAME …).
# Both stages need the same base, with Python 3.11 or newer: a Debian or Ubuntu one of any make.
#   VARIANT=cuda: ONNX Runtime for CUDA and TensorRT; then BASE brings CUDA, cuDNN and, where wanted, TensorRT.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG VARIANT=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# `strip` stays behind in this stage, so its version is whatever the base brings.
# hadolint ignore=DL3008
RUN python3 -m venv /opt/eyeline \
 && { command -v strip >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends binutils; }; }
COPY requirements/cluster.txt requirements/cuda.txt requirements/
RUN /opt/eyeline/bin/pip install --require-hashes --only-binary :all: -r requirements/cluster.txt \
 && case "${VARIANT}" in \
      cpu) ;; \
      cuda) /opt/eyeline/bin/pip uninstall --yes onnxruntime \
         && /opt/eyeline/bin/pip install --require-hashes --only-binary :all: --no-deps -r requirements/cuda.txt ;; \
      *) echo "VARIANT is cpu or cuda, not '${VARIANT}'" >&2; exit 2 ;; \
    esac
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY deploy/slim.sh deploy/healthcheck.py deploy/
RUN /opt/eyeline/bin/pip install --no-deps --no-build-isolation . \
 && sh deploy/slim.sh /opt/eyeline \
 && cp deploy/healthcheck.py /opt/eyeline/healthcheck.py

FROM ${BASE}
# Numbers, not names: Kubernetes' runAsNonRoot can tell only those, and the image needs no entry in /etc/passwd.
COPY --from=build /opt/eyeline /opt/eyeline
RUN install -d -o 10001 -g 10001 -m 700 /data
ENV PATH=/opt/eyeline/bin:$PATH HOME=/data PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 EYELINE_DATA_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
# What a role without a port is asked, the compose file says: nothing.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python3", "/opt/eyeline/healthcheck.py"]
ENTRYPOINT ["eyeline"]
CMD ["up", "--host", "0.0.0.0"]
