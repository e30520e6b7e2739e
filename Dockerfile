# syntax=docker/dockerfile:1
# CPU:  docker build -t spectramind .
# GPU:  docker build -t spectramind:gpu --build-arg BASE_IMAGE=nvidia/cuda:12.8.1-devel-ubuntu24.04 --build-arg EXTRAS=gpu .
# Any Debian or Ubuntu image with Python >= 3.11 in its archive serves as base; mamba-ssm (extra `gpu`) compiles with the
# CUDA compiler of a `devel` image.
ARG BASE_IMAGE=debian:bookworm-slim
FROM ${BASE_IMAGE}
ARG EXTRAS=""

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    DO_NOT_TRACK=1 \
    GX_ANALYTICS_ENABLED=false \
    MLFLOW_DISABLE_TELEMETRY=true \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    PATH=/opt/venv/bin:$PATH

RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates git python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 spectramind \
    && python3 -m venv /opt/venv

WORKDIR /opt/spectramind

# Dependencies first: this layer is rebuilt only when they change. The package of version 0 that stands in for the sources
# is replaced below. Sources that compile against torch need it before they are built, hence no build isolation.
COPY pyproject.toml requirements.lock LICENSE ./
RUN mkdir spectramind \
    && touch README.md \
    && echo '__version__ = "0"' > spectramind/__init__.py \
    && pip install "setuptools>=77" wheel \
    && if [ "${EXTRAS}" = gpu ]; then pip install -c requirements.lock torch packaging ninja; fi \
    && pip install --no-build-isolation -c requirements.lock -e ".${EXTRAS:+[${EXTRAS}]}"

COPY . .
RUN pip install --no-build-isolation --no-deps -e . \
    && pip check \
    && install --directory --owner spectramind outputs /mlflow

# Recorded in every run: --build-arg GIT_COMMIT=$(git rev-parse HEAD) --build-arg IMAGE=NAME
ARG GIT_COMMIT=""
ARG IMAGE=""
ENV GIT_COMMIT=${GIT_COMMIT} \
    DOCKER_IMAGE=${IMAGE}

# docker run --rm -v ROOT:/data:ro -v spectramind:/opt/spectramind/outputs spectramind run data.root=/data
USER spectramind
ENTRYPOINT ["spectramind"]
CMD ["--help"]
