"""The default sandbox: containers forked from a jailed template, made of Linux namespaces, seccomp and cgroups.

    from flow_platform.sandbox.namespaces.sandbox import NamespacesSandbox

    sandbox = NamespacesSandbox(cache_dir, pool_size=8, max_templates=8)  # is a flow_platform.sandbox.base.Sandbox
    await sandbox.open()

This package imports nothing by itself: parts of it are copied into the runtime root and run inside the jail.

How the files depend on each other, from the host's side to the inside of a container:

    sandbox  the port                         jail      stage 0: builds the jail, runs on the host's Python
    pool     sealed containers that wait      template  stage 1: inside the jail, imports once, forks
    container  the host's end of one          forks     one per request, their ends are told
                                              preload   what is imported before
                                              seal      what a fork does until it is sealed
    runtime_root, elf, identity, cgroups, checks
"""
