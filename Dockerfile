# searchkit on an NVIDIA GPU, with the versions that `searchkit doctor --target NAME` names for it. Two lines:
#
#   docker build --build-arg LINE=cuda13 -t searchkit .    Turing (RTX 2080 Ti) and newer: CUDA 13, TensorRT 11
#   docker build --build-arg LINE=volta  -t searchkit .    V100: CUDA 12, TensorRT 10.4, the last that serve it
#
# Single versions can be replaced too: for ONNX Runtime's TensorRT provider on a V100,
# --build-arg ONNXRUNTIME=onnxruntime-gpu==1.20.2. Run with `docker run --gpus all`. Not built where this file was
# written, as no Docker engine ran there.
ARG LINE=cuda13

FROM nvidia/cuda:12.6.3-cudnn-runtime-ubuntu24.04 AS volta
ARG TORCH="torch==2.13.0"
ARG TORCH_INDEX="https://download.pytorch.org/whl/cu126"
ARG ONNXRUNTIME="onnxruntime-gpu==1.26.0"
ARG TENSORRT="tensorrt-cu12==10.4.0"
ARG CUDA_PYTHON="cuda-core==1.2.2 cuda-bindings==12.9.10"
ENV TORCH="${TORCH}" TORCH_INDEX="${TORCH_INDEX}" ONNXRUNTIME="${ONNXRUNTIME}" TENSORRT="${TENSORRT}" CUDA_PYTHON="${CUDA_PYTHON}"

FROM nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04 AS cuda13
ARG TORCH="torch==2.13.0"
ARG TORCH_INDEX=""
ARG ONNXRUNTIME="onnxruntime-gpu==1.31.1"
ARG TENSORRT="tensorrt-cu13==11.4.0.106"
ARG CUDA_PYTHON="cuda-core==1.2.2 cuda-bindings==13.5.0"
ENV TORCH="${TORCH}" TORCH_INDEX="${TORCH_INDEX}" ONNXRUNTIME="${ONNXRUNTIME}" TENSORRT="${TENSORRT}" CUDA_PYTHON="${CUDA_PYTHON}"

# hadolint ignore=DL3006
FROM ${LINE}
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# Ubuntu's own Python; its archive keeps no old versions, so none is named.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 searchkit

USER 10001:10001
WORKDIR /home/searchkit/src
COPY --chown=10001:10001 . .

# The versions of the line take the place of those in constraints.txt; the rest is as everywhere else. TensorRT's
# packages on PyPI fetch their libraries from NVIDIA's package index.
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN python3 -m venv /home/searchkit/venv \
    && grep -vE '^(torch|onnxruntime|onnxruntime-gpu|tensorrt-rtx|cuda-core|cuda-bindings|nvidia-cuda-nvrtc|triton)==' constraints.txt \
       > /home/searchkit/constraints.txt \
    && /home/searchkit/venv/bin/python -m pip install --no-cache-dir "${TORCH}" \
       ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} \
    && read -ra packages <<< "${CUDA_PYTHON}" \
    && /home/searchkit/venv/bin/python -m pip install --no-cache-dir -c /home/searchkit/constraints.txt \
       "${TORCH}" "${ONNXRUNTIME}" "${TENSORRT}" "${packages[@]}" -e . \
    && mkdir /home/searchkit/work

ENV PATH=/home/searchkit/venv/bin:$PATH
WORKDIR /home/searchkit/work
ENTRYPOINT ["searchkit"]
CMD ["doctor"]
