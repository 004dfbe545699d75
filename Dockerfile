# An image of Concord: docker build --tag concord-registry:0.1.0 .
# Where the package index cannot be reached directly, give pip's own settings as build arguments (PIP_INDEX_URL, …).
ARG BASE=python:3.11.11-slim-bookworm
FROM ${BASE}

ARG PIP_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_NO_INDEX

COPY pyproject.toml README.md LICENSE requirements/runtime.txt /source/
COPY crdt /source/crdt
COPY registry /source/registry

# Dependencies are those of the lock file, by version and hash. Nothing is installed at run time, so what installs does
# not stay.
RUN python3 -m venv /opt/concord \
    && /opt/concord/bin/pip install --no-cache-dir --require-hashes --requirement /source/runtime.txt \
    && /opt/concord/bin/pip install --no-cache-dir --no-deps --no-build-isolation /source \
    && /opt/concord/bin/pip uninstall --yes pip setuptools \
    && install --directory --owner 10001 --group 10001 /data \
    && rm -r /source

# docker stop kills after 10 s, unless told otherwise: 6 s for uploads and requests, 3 s to end, 1 s to spare. Who gives
# more says so twice: docker run --stop-timeout 65 --env CONCORD_DRAIN_S=60.
ENV PATH=/opt/concord/bin:$PATH \
    CONCORD_LISTEN=0.0.0.0:5000 \
    CONCORD_DATA=/data/concord \
    CONCORD_DRAIN_S=6
USER 10001:10001
VOLUME /data
EXPOSE 5000
ENTRYPOINT ["concord"]
CMD ["serve"]
