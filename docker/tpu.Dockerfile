# A worker of a TPU slice: the wheel libtpu drives the chips. It reaches them and the other workers by the options of `docker run`.
# Every worker starts the same command, here of a v5e:8x8; /mnt/runs is a disk that all of them share (docs/guide/slice.md).
#
#   docker build -f docker/tpu.Dockerfile -t rods_jax:tpu .
#   docker run --privileged --ulimit memlock=-1 --net host -v /mnt/runs:/app/runs -v "$PWD/checkpoints:/app/checkpoints:ro" \
#     rods_jax:tpu train --config configs/bfcl_qwen3_4b.py --coordinator auto --mesh 16 2 1 2 --update.micro-batches 16 \
#     --rollout.concurrent-tasks 1 --rollout.concurrent-rollouts 8 --evaluation.concurrent-tasks 4
#
# /mnt/runs must let user 1000 write.  On Python 3.12 constraints.txt gives another jax and libtpu than those with which this layout
# was compiled: ask scripts.plan first, or begin from python:3.11-slim-bookworm.
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
    && pip install --no-cache-dir -c constraints.txt --no-build-isolation -e ".[tpu,bfcl]" \
    && pip install --no-cache-dir -c constraints.txt --no-deps bfcl-eval

COPY --chown=1000 configs configs
COPY --chown=1000 scripts scripts

ENTRYPOINT ["rods"]
CMD ["--help"]
