# docker build -t brats_tf .                     for a processor
# docker build --target gpu -t brats_tf:gpu .    with CUDA's libraries, for `docker run --gpus all`
# Neither cases nor weights are in the image: mount the folder with them at /work.

FROM python:3.12-slim-bookworm AS build
WORKDIR /source
COPY setup.cfg pyproject.toml requirements.lock README.md LICENSE ./
COPY brats_tf brats_tf
# The versions of the lock, but not what tests and documentation need.
RUN python -m venv /opt/brats_tf \
    && /opt/brats_tf/bin/pip install --no-cache-dir --constraint requirements.lock ".[clinical,serve]"

FROM build AS build-gpu
RUN /opt/brats_tf/bin/pip install --no-cache-dir --constraint requirements.lock ".[gpu]"

FROM python:3.12-slim-bookworm AS runtime
RUN useradd --create-home --uid 1000 brats && install --directory --owner=brats /work
ENV PATH=/opt/brats_tf/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /work
USER 1000
ENTRYPOINT ["brats-tf"]
CMD ["--help"]

FROM runtime AS gpu
COPY --from=build-gpu /opt/brats_tf /opt/brats_tf

FROM runtime AS cpu
COPY --from=build /opt/brats_tf /opt/brats_tf
