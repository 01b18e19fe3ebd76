# Images of the gateway: docker build -t mtcp-serve . (CPU), with --target gpu (CUDA), and --target triton
# (Triton with the shipped model, to put behind the gateway). docs/deployment.md says how they are run.
ARG PYTHON=python:3.11-slim
ARG CUDA=nvidia/cuda:13.0.2-cudnn-runtime-ubuntu24.04
ARG TRITON=nvcr.io/nvidia/tritonserver:25.10-py3

# The gateway with the versions of constraints.txt, in a folder of its own.
FROM ${PYTHON} AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY mtcp_serve ./mtcp_serve
RUN python -m venv /opt/mtcp \
    && /opt/mtcp/bin/pip install --no-cache-dir -c constraints.txt '.[cpu,otel,triton]'

# The same on the CUDA image's own Python, with ONNX Runtime's build for it.
FROM ${CUDA} AS gpu-build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY mtcp_serve ./mtcp_serve
RUN python3 -m venv /opt/mtcp \
    && /opt/mtcp/bin/pip install --no-cache-dir -c constraints.txt '.[gpu,otel,triton]'

FROM ${CUDA} AS gpu
LABEL org.opencontainers.image.title="mtcp-serve (CUDA)" \
      org.opencontainers.image.description="One image, one request, five maps" \
      org.opencontainers.image.licenses="Apache-2.0"
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=gpu-build /opt/mtcp /opt/mtcp
ENV PATH=/opt/mtcp/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MTCP_HOST=0.0.0.0 \
    MTCP_PORT=8000 \
    MTCP_PROVIDER=cuda
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-m", "mtcp_serve.server.healthcheck"]
ENTRYPOINT ["mtcp-serve"]
CMD ["serve"]

# The shipped bundle as a Triton repository; no torch is needed for that.
FROM build AS repository
COPY export ./export
RUN /opt/mtcp/bin/python -m export.triton mtcp_serve/bundles/mtcp-lite -o /repository --backend onnxruntime

FROM ${TRITON} AS triton
LABEL org.opencontainers.image.title="mtcp-lite in Triton" \
      org.opencontainers.image.licenses="Apache-2.0 AND BSD-3-Clause"
COPY --from=repository /repository /repository
ENV ORT_DISABLE_TELEMETRY=1
USER 1000:1000
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 CMD \
    ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=3)"]
CMD ["tritonserver", "--model-repository=/repository"]

FROM ${PYTHON} AS cpu
LABEL org.opencontainers.image.title="mtcp-serve" \
      org.opencontainers.image.description="One image, one request, five maps" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/mtcp /opt/mtcp
ENV PATH=/opt/mtcp/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MTCP_HOST=0.0.0.0 \
    MTCP_PORT=8000
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "mtcp_serve.server.healthcheck"]
ENTRYPOINT ["mtcp-serve"]
CMD ["serve"]
