# searchkit on an NVIDIA GPU. Written against the image's documentation; not built where this file was written, as no Docker
# engine ran there.
FROM nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv git make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 searchkit

USER searchkit
WORKDIR /home/searchkit/src
COPY --chown=searchkit:searchkit . .

# The same install as everywhere else, with the GPU build of ONNX Runtime in place of the CPU's.
RUN make .venv/.ready EXTRAS=gpu,dev

ENV PATH=/home/searchkit/src/.venv/bin:$PATH
WORKDIR /home/searchkit/work
ENTRYPOINT ["searchkit"]
CMD ["--help"]
