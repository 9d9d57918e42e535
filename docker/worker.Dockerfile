# The queue face, on the CPU. It holds the core and the worker and nothing else: no web framework, no CUDA, no build tools.
# With --build-arg LOCK=worker-cuda.lock it brings CUDA along.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM $PYTHON_IMAGE AS build
ARG LOCK=worker.lock
COPY requirements/uv.lock requirements/worker*.lock /requirements/
RUN python3 -m venv /build \
    && /build/bin/pip install --no-cache-dir --require-hashes -r /requirements/uv.lock \
    && python3 -m venv --without-pip /venv \
    && VIRTUAL_ENV=/venv /build/bin/uv pip install --no-cache --compile-bytecode --require-hashes -r "/requirements/$LOCK"
# ONNX Runtime's wheel brings a quarter of a gigabyte of kernels for CUDA, which nothing loads on a CPU.
RUN if [ "$LOCK" = worker.lock ]; then rm /venv/lib/python3.11/site-packages/onnxruntime/capi/libonnxruntime_providers_[ct]*.so; fi

FROM $PYTHON_IMAGE
# What installs has no work here.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3.11/site-packages/* /usr/local/lib/python3.11/ensurepip
COPY --from=build /venv /venv
COPY oarlock /app/oarlock
COPY worker /app/worker
COPY models /app/models
WORKDIR /app
RUN printf '#!/bin/sh\nexec python -m oarlock.cli "$@"\n' >/usr/local/bin/oarlock && chmod 755 /usr/local/bin/oarlock
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    PYTHONPATH=/app OARLOCK_DATA=/data OARLOCK_MODELS=/app/models OARLOCK_ALIVE_FILE=/tmp/alive
# The image is a module of mercure and a MONAI Application Package too (docs/operations.md).
COPY docker/application/app.json docker/application/pkg.json /etc/monai/
RUN mkdir -p /var/holoscan/input /var/holoscan/output && ln -s /etc/monai /etc/holoscan && chown -R 10001:10001 /var/holoscan
ENV HOLOSCAN_APP_MANIFEST_PATH=/etc/holoscan/app.json HOLOSCAN_PKG_MANIFEST_PATH=/etc/holoscan/pkg.json HOLOSCAN_WORKDIR=/var/holoscan \
    HOLOSCAN_INPUT_PATH=/var/holoscan/input HOLOSCAN_OUTPUT_PATH=/var/holoscan/output HOLOSCAN_MODEL_PATH=/app/models
# Nothing is written when it runs, so what is not compiled now is compiled at every start.
RUN python -m compileall -q -x /lib2to3/ /app "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
# A new volume takes its owner from the folder that it is mounted on.
RUN mkdir -p /data && chown 10001:10001 /data
USER 10001:10001
VOLUME /data
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["sh", "-c", "test $(date +%s) -lt $(cat $OARLOCK_ALIVE_FILE)"]
# mercure runs an image as it is, and says by its variables that it does.
CMD ["sh", "-c", "if [ -n \"$MERCURE_IN_DIR\" ]; then exec oarlock application; fi; exec python -m worker"]
ARG REVISION=unknown
LABEL org.opencontainers.image.title="oarlock-worker" \
      org.opencontainers.image.version="0.1.0" \
      org.monai.deploy.app-sdk="oarlock" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0"
