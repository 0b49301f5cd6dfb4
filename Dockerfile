# `catordog serve` in a container: not as root, no torch, read-only.
#   docker build -t catordog .
#   docker run --rm -p 127.0.0.1:7860:7860 --read-only --cap-drop ALL catordog
FROM python:3.12-slim AS build
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY src src
RUN python -m venv /opt/catordog && /opt/catordog/bin/pip install --no-cache-dir '.[serve]'

FROM python:3.12-slim
COPY --from=build /opt/catordog /opt/catordog
RUN useradd --system --no-create-home --uid 10001 catordog
USER 10001
ENV PATH=/opt/catordog/bin:$PATH PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=3s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7860/healthz', timeout=2)"]
ENTRYPOINT ["catordog"]
CMD ["serve", "--host", "0.0.0.0"]
