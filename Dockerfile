# mtrl-transfer on a CPU. Build: `docker build -t mtrl-transfer .`
# Demo:  docker run --rm -v "$PWD/out:/work/out" mtrl-transfer mtrl-demo out=out/demo
# Train: docker run --rm -v "$PWD/runs:/work/runs" mtrl-transfer mtrl-train point
FROM python:3.11-slim
# OpenGL without a screen, for clips of Meta-World.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libegl1 libgl1-mesa-dri \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# The dependencies change less often than the source: they have a layer apart. torch comes without CUDA.
COPY constraints.txt ./
RUN pip install -c constraints.txt --index-url https://download.pytorch.org/whl/cpu torch
COPY pyproject.toml README.md LICENSE ./
COPY mtrl_transfer mtrl_transfer
COPY agents agents
COPY envs envs
COPY configs configs
COPY results/agents results/agents
RUN pip install -c constraints.txt ".[baselines,video]"
RUN useradd --create-home user
WORKDIR /work
RUN chown user /work
USER user
CMD ["mtrl-demo", "video=false"]
