# The controller. Build from the root of the repository: docker build -t varve-controller:0.1.0 .
# Both stages are of the same Debian, so that the libvirt binding fits the client library it runs with.

FROM debian:bookworm-slim AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 python3-venv python3-dev gcc pkg-config libvirt-dev \
 && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/varve
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY controller ./controller
RUN /opt/varve/bin/pip install --no-cache-dir --no-compile . \
 && /opt/varve/bin/pip uninstall --yes pip setuptools \
 && /usr/bin/python3 -m compileall -q /opt/varve/lib

FROM debian:bookworm-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="varve-controller" \
      org.opencontainers.image.description="Kubernetes operator that makes live libvirt/QEMU backing chains match declared VolumeSnapshots" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# libvirt0: the client library alone. openssh-client: qemu+ssh. The link: libvirt does not hand known_hosts= on to ssh,
# which reads its system-wide file; that is the mounted one.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 libvirt0 openssh-client ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 65532 varve \
 && useradd --uid 65532 --gid 65532 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin varve \
 && ln -s /etc/varve/keys/known_hosts /etc/ssh/ssh_known_hosts
COPY --from=build /opt/varve /opt/varve
ENV PATH=/opt/varve/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
ENTRYPOINT ["varve-controller"]
