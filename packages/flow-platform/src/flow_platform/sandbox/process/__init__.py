"""The lowest rung: plain processes of the runner's user, with nothing between them and the machine.

    from flow_platform.sandbox.process.sandbox import ProcessSandbox

    sandbox = ProcessSandbox(cache_dir, allowed=True)  # is a flow_platform.sandbox.base.Sandbox
    await sandbox.open()

For development on machines that refuse containers. What is held here is order, not safety: each execution is a fresh
process with a folder, an environment and limits of its own, and when it ends nothing of it goes on running. What wants
to read other files, kill other processes or reach other hosts can.
"""
