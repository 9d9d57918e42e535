# The DICOM face. It holds the core and the gateway and nothing else: no model, no service, no worker, no build tools.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM $PYTHON_IMAGE AS build
COPY requirements/uv.lock requirements/gateway.lock /requirements/
RUN python3 -m venv /build \
    && /build/bin/pip install --no-cache-dir --require-hashes -r /requirements/uv.lock \
    && python3 -m venv --without-pip /venv \
    && VIRTUAL_ENV=/venv /build/bin/uv pip install --no-cache --compile-bytecode --require-hashes -r /requirements/gateway.lock

FROM $PYTHON_IMAGE
# What installs has no work here.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3.11/site-packages/* /usr/local/lib/python3.11/ensurepip
COPY --from=build /venv /venv
COPY oarlock /app/oarlock
COPY gateway /app/gateway
WORKDIR /app
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    OARLOCK_GATEWAY_DATA=/data OARLOCK_GATEWAY_HOST=0.0.0.0
# Nothing is written when it runs, so what is not compiled now is compiled at every start.
RUN python -m compileall -q -x /lib2to3/ /app "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
# A new volume takes its owner from the folder that it is mounted on.
RUN mkdir -p /data && chown 10001:10001 /data
USER 10001:10001
VOLUME /data
EXPOSE 11112 2762
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9112/metrics', timeout=4)"]
CMD ["python", "-m", "gateway"]
ARG REVISION=unknown
LABEL org.opencontainers.image.title="oarlock-gateway" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0"
