# The HTTP face. It holds the core and the service and nothing else: no ONNX Runtime, no worker, no build tools.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM $PYTHON_IMAGE AS build
COPY requirements/uv.lock requirements/service.lock /requirements/
RUN python3 -m venv /build \
    && /build/bin/pip install --no-cache-dir --require-hashes -r /requirements/uv.lock \
    && python3 -m venv --without-pip /venv \
    && VIRTUAL_ENV=/venv /build/bin/uv pip install --no-cache --compile-bytecode --require-hashes -r /requirements/service.lock

FROM $PYTHON_IMAGE
# What installs has no work here.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3.11/site-packages/* /usr/local/lib/python3.11/ensurepip
# Pango sets the text of reports as PDF. Where no package server is reached the image does without: then report.pdf says why.
# hadolint ignore=DL3008
RUN (apt-get update && apt-get install -y --no-install-recommends libpango-1.0-0 libpangoft2-1.0-0 fonts-dejavu-core) \
    || echo "without Pango: reports will not be made as PDF" >&2; rm -rf /var/lib/apt/lists/*
COPY --from=build /venv /venv
COPY oarlock /app/oarlock
COPY service /app/service
COPY models /app/models
WORKDIR /app
RUN printf '#!/bin/sh\nexec python -m oarlock.cli "$@"\n' >/usr/local/bin/oarlock && chmod 755 /usr/local/bin/oarlock
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    PYTHONPATH=/app OARLOCK_DATA=/data OARLOCK_MODELS=/app/models OARLOCK_HOST=0.0.0.0 OARLOCK_EMBEDDED_WORKER=false
# Nothing is written when it runs, so what is not compiled now is compiled at every start.
RUN python -m compileall -q -x /lib2to3/ /app "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
# A new volume takes its owner from the folder that it is mounted on.
RUN mkdir -p /data /keys /queue /secrets && chown 10001:10001 /data /keys /queue /secrets
USER 10001:10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/livez', timeout=4)"]
CMD ["python", "-m", "service"]
ARG REVISION=unknown
LABEL org.opencontainers.image.title="oarlock-service" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0"
