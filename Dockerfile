# Both stages must run the same interpreter: the virtual environment is copied between them.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python -m venv /opt/housekeeping && python -m venv /opt/build
COPY requirements.lock requirements-runtime.lock ./
# setuptools builds the project's wheel and stays behind; its hash is in the development lock.
RUN sed -n '/^setuptools==/,/[^\\]$/p' requirements.lock > build.lock \
    && /opt/build/bin/pip install --require-hashes --requirement build.lock \
    && /opt/housekeeping/bin/pip install --require-hashes --only-binary :all: \
        --requirement requirements-runtime.lock
COPY pyproject.toml README.md beat_schedule.py ./
COPY tasks tasks
COPY settings settings
COPY housekeeping housekeeping
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/housekeeping/bin/pip install --no-index --no-deps dist/*.whl \
    && /opt/housekeeping/bin/pip check

FROM python:${PYTHON}-slim
# A fixed number, so that a mounted export folder can be given to it.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin housekeeping
COPY --from=build /opt/housekeeping /opt/housekeeping
# REMAP_SIGTERM: `docker stop` then gives running tasks worker_soft_shutdown_timeout to end and puts
# the rest back into the queue; the stock worker would wait for them until it is killed.
ENV PATH=/opt/housekeeping/bin:${PATH} PYTHONUNBUFFERED=1 REMAP_SIGTERM=SIGQUIT
USER housekeeping
WORKDIR /opt/housekeeping
CMD ["celery", "-A", "tasks", "worker", "--without-gossip", "--without-mingle", "-E", "--loglevel", "INFO"]
