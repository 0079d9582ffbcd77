"""The hardest rung: each container has a kernel of its own, which runs in user space (gVisor's `runsc`).

    from flow_platform.sandbox.gvisor.sandbox import GvisorSandbox

    sandbox = GvisorSandbox(cache_dir, pool_size=2)  # is a flow_platform.sandbox.base.Sandbox
    await sandbox.open()

The way from the outside to the inside; each arrow is a border that has to fall by itself:

    runner --> jail (namespaces/jail.py: no host files, no network, no rights out there)
           --> launcher  one process id namespace, cgroup and private /tmp per container, executes runsc in it
           --> runsc     the sentry: a kernel in user space, with its own network stack, seccomp around it
           --> keeper    process 1 of that kernel; makes the component's world, then only waits and ferries
           --> component a process id namespace of its own in there, no rights, seccomp

On the host: `sandbox` the port, `container` the host's end of one, `program` finds runsc and what it can,
`bundle` what runsc is told, `checks`. In the jail: `launcher`. In gVisor: `keeper`, `component`, `ferry`.
This package imports nothing by itself: its inside parts are copied into the runtime root.
"""
