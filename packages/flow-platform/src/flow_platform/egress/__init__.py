"""The way out of containers that declare one, and of builds: names are resolved and addresses checked out here.

A broker serves the connections that one container opens on its proxy's listener. It runs outside of the container, in
the runner. Read `broker.py` first.

    broker.py       accepts, counts, records, ends          dial.py      resolves, checks, connects to what was checked
    policy.py       where to                                resolver.py  the port of name resolution
    handshake.py    CONNECT and http:// requests            forward.py   one plain request and its answer
    socks.py        the same by SOCKS 5                     tunnel.py    bytes both ways, after client_hello.py
    traffic.py      limits, counts, records                 refusal.py   why not
"""
