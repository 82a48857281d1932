# The controller. Build from the root of the repository, with the base image named by its digest:
#   docker build --build-arg DEBIAN=sha256:… -t varve-controller:0.1.0 .
# docker buildx imagetools inspect debian:bookworm-slim shows the digest of today. There is no default: a tag is whatever it
# points at on the day of the build, so a build without the digest ends here.
# Everything else is pinned by it: Debian's packages are those of the snapshot that the base image was made from (it names it
# in its own sources), and Python's are pinned by hash in requirements.txt. Newer packages: a newer digest.
# Both stages are of the same Debian, so that the libvirt binding fits the client library it runs with.
ARG DEBIAN

FROM debian:bookworm-slim@${DEBIAN} AS base
# The sources of the image name its snapshot in a comment above the mirror; without one this ends with an error.
RUN sources=/etc/apt/sources.list.d/debian.sources \
 && sed -i -e '/^# http.*\/archive\/debian/{s/^# /URIs: /;n;d}' "$sources" \
 && [ "$(grep -c '^URIs: .*/archive/debian' "$sources")" = "$(grep -c '^URIs:' "$sources")" ] \
 && echo 'Acquire::Check-Valid-Until "false";' > /etc/apt/apt.conf.d/snapshot

FROM base AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 python3-venv python3-dev gcc pkg-config libvirt-dev \
 && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/varve
WORKDIR /src
# Nothing is fetched that has no hash here: what is built is built with the setuptools of requirements-build.txt.
COPY requirements-build.txt requirements.txt ./
RUN /opt/varve/bin/pip install --no-cache-dir --no-compile --require-hashes -r requirements-build.txt \
 && /opt/varve/bin/pip install --no-cache-dir --no-compile --require-hashes --no-build-isolation -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY controller ./controller
RUN /opt/varve/bin/pip install --no-cache-dir --no-compile --no-deps --no-index --no-build-isolation . \
 && /opt/varve/bin/pip check \
 && /opt/varve/bin/pip uninstall --yes pip setuptools \
 && /usr/bin/python3 -m compileall -q /opt/varve/lib

FROM base
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
