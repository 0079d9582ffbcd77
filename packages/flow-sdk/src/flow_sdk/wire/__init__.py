"""Every document, message and status that crosses a boundary between two processes.

`execution`: what a client sees. `runner`: what engine and runner say to each other over NATS. `harness`: what a runner
and a container say to each other over the inherited socket. `subjects`: the NATS subjects and headers.
"""
