# The queue face, on the CPU. It holds the core and the worker and nothing else: no web framework, no CUDA libraries, no build tools.
# With --build-arg LOCK=worker-cuda.lock it brings the CUDA libraries along.
FROM python:3.11-slim-bookworm AS build
ARG LOCK=worker.lock
COPY requirements/uv.lock requirements/worker*.lock /requirements/
RUN python3 -m venv /build \
    && /build/bin/pip install --no-cache-dir --require-hashes -r /requirements/uv.lock \
    && python3 -m venv --without-pip /venv \
    && VIRTUAL_ENV=/venv /build/bin/uv pip install --no-cache --require-hashes -r "/requirements/$LOCK"

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="oarlock-worker" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /venv /venv
COPY oarlock /app/oarlock
COPY worker /app/worker
COPY models /app/models
WORKDIR /app
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    OARLOCK_DATA=/data OARLOCK_MODELS=/app/models
RUN mkdir -p /data && chown 10001:10001 /data
USER 10001:10001
VOLUME /data
HEALTHCHECK NONE
CMD ["python", "-m", "worker"]
