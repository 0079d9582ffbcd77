"""Containers of an engine: Docker, or Podman by its Docker-compatible socket.

    from flow_platform.sandbox.docker.sandbox import DockerSandbox

    sandbox = DockerSandbox(cache_dir, host="unix:///var/run/docker.sock")  # is a flow_platform.sandbox.base.Sandbox
    await sandbox.open()

A container is made for one execution and used once. Sealed ones wait in a pool: their first program
(`flow_sdk.harness.container`, in any image that holds the SDK) has everything imported, and waits on a unix socket of
its own. Over it the runner gets the container's listeners and gives it its two log pipes; then the frames of the
harness go over it, as everywhere.

    sandbox     the port                      creation   what a container is made with
    pool        sealed containers that wait   seccomp    the system calls it may make
    container   the host's end of one         entrance   the socket between them
    engine_api  what we ask of the engine     hardening  what the engine cannot close, root closes from outside
    image       our own image, without a registry
    leftovers, reaper  nothing outlives its runner
"""
