# The page on an index, with the model in an ONNX file: no torch, no compiler. docs/search.md says how to build and run it.
FROM python:3.12-slim AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
COPY --from=wheel /wheels /source/constraints.txt /tmp/hierderm/
# What `hierderm serve` imports, and no more; tests/app/test_container.py compares.
RUN pip install --no-cache-dir --no-deps /tmp/hierderm/*.whl \
    && pip install --no-cache-dir --constraint /tmp/hierderm/constraints.txt \
        annotated-types faiss-cpu fastapi filelock huggingface-hub jinja2 joblib matplotlib numpy onnxruntime packaging pandas \
        pillow pyarrow pydantic python-multipart rich safetensors scikit-learn scipy simplejpeg threadpoolctl tomli-w tqdm typer uvicorn \
    && rm -r /tmp/hierderm \
    && useradd --create-home --uid 10001 hierderm
USER hierderm
WORKDIR /home/hierderm
ENV HF_HUB_OFFLINE=1
EXPOSE 8000
# Alive is who answers, also by asking for the token.
HEALTHCHECK --start-period=60s --timeout=5s CMD ["python", "-c", "import http.client; page = http.client.HTTPConnection('127.0.0.1', 8000, timeout=4); page.request('GET', '/'); raise SystemExit(page.getresponse().status not in (200, 401))"]
ENTRYPOINT ["hierderm", "serve", "/index", "--model", "/model.onnx", "--host", "0.0.0.0"]
