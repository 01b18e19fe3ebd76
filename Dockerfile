# The server alone (no torch), for CPU. Build: docker build -t mtcp-serve .
# Run:   docker run --rm -p 8000:8000 mtcp-serve
# Another bundle: docker run --rm -p 8000:8000 -v "$PWD/bundle:/bundle:ro" -e MTCP_BUNDLE=/bundle mtcp-serve
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY mtcp_serve ./mtcp_serve
RUN python -m venv /opt/mtcp && /opt/mtcp/bin/pip install --no-cache-dir .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home mtcp
COPY --from=build /opt/mtcp /opt/mtcp
ENV PATH=/opt/mtcp/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MTCP_HOST=0.0.0.0 \
    MTCP_PORT=8000
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD \
    ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"MTCP_PORT\"]}/health/ready', timeout=2)"]
ENTRYPOINT ["mtcp-serve"]
CMD ["serve"]
