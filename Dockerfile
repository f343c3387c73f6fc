# mtrl-transfer on a CPU. Build: `docker build -t mtrl-transfer .`
# Make the folders first: Docker would make them root's.
# Demo:  mkdir -p out && docker run --rm --user "$(id -u)" -e HOME=/tmp -v "$PWD/out:/data/out" mtrl-transfer mtrl-demo out=out/demo
# Train: mkdir -p runs && docker run --rm --user "$(id -u)" -e HOME=/tmp -v "$PWD/runs:/data/runs" mtrl-transfer mtrl-train point
FROM python:3.11-slim
# OpenGL without a screen, for clips of Meta-World.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libegl1 libgl1-mesa-dri \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# The dependencies change less often than the source: they have a layer apart. For torch without CUDA, name PyTorch's index
# of CPU wheels: `docker build --build-arg TORCH_INDEX=URL ...`.
ARG TORCH_INDEX
COPY constraints.txt ./
RUN pip install -c constraints.txt ${TORCH_INDEX:+--index-url $TORCH_INDEX} torch
COPY pyproject.toml README.md LICENSE ./
COPY mtrl_transfer mtrl_transfer
COPY agents agents
COPY envs envs
COPY configs configs
COPY results/agents results/agents
RUN pip install -c constraints.txt ".[baselines,video]"
RUN useradd --create-home user
WORKDIR /data
RUN chown user /data
USER user
CMD ["mtrl-demo", "video=false"]
