# A host with NVIDIA cards: the wheels bring CUDA and cuDNN, so the host needs the driver and the NVIDIA container toolkit alone.
#
#   docker build -f docker/gpu.Dockerfile -t rods_jax:gpu .
#   mkdir -p runs && chmod a+rwx runs    # docker would make it root's, and the container's user, 1000, could not write
#   docker run --gpus all -e XLA_PYTHON_CLIENT_MEM_FRACTION=0.95 -v "$PWD/runs:/app/runs" -v "$PWD/checkpoints:/app/checkpoints:ro" \
#     rods_jax:gpu train --config configs/gpu_qwen3_06b.py
FROM python:3.12-slim-bookworm

RUN useradd --create-home --uid 1000 rods && install --directory --owner 1000 /app /app/runs /venv
USER 1000
WORKDIR /app
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1

# As `make` installs, at the versions of constraints.txt. bfcl-eval comes without its dependencies: their pins exclude numpy 2.
COPY --chown=1000 pyproject.toml constraints.txt README.md LICENSE ./
COPY --chown=1000 rods_jax rods_jax
COPY --chown=1000 models models
RUN python -m venv /venv \
    && pip install --no-cache-dir -c constraints.txt setuptools \
    && pip install --no-cache-dir -c constraints.txt --no-build-isolation -e ".[gpu,bfcl]" \
    && pip install --no-cache-dir -c constraints.txt --no-deps bfcl-eval

COPY --chown=1000 configs configs
COPY --chown=1000 scripts scripts

ENTRYPOINT ["rods"]
CMD ["--help"]
