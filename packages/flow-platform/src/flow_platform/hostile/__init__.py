"""The hostile suite: what strangers' code would try, tried on this machine.

Each attempt *tries* and reports what it reached, with canaries planted where nothing may be read: on the host, in the
environment of the server, in another organization, in another execution of the same component. `flow doctor --hostile`
runs it and prints `groups` with what became of each; `tests/security` runs the same attempts and asserts on each.

    groups           the 48 groups of attempts, and where else those are held that need more than a machine
    answer, attempt  what an attempt is, and what it says
    inside/          the components: each file is the source of one, `source` reads it
    box, canaries    a sandbox with what is planted around it; the attempts on it are in `escape`, `neighbours`,
                     `exhaustion`, `frames`, `ways_out`, `supply`, `borders`
    world            a platform of two organizations; the attempts on it are in `tenants`, `tokens`, `gateway`, `front`
    suite            all of them
"""
