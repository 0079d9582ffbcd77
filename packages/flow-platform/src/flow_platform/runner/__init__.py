"""The process that hosts containers: asks for work, runs attempts, reports them, and builds environments."""

from flow_platform.runner.config import RunnerConfig
from flow_platform.runner.process import run_runner

__all__ = ["RunnerConfig", "run_runner"]
