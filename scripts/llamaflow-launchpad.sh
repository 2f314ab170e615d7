#!/usr/bin/env bash
# The launch service; installed as .venv/bin/llamaflow-launchpad.
set -eu
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PATH="$root/.venv/bin:$PATH" VIRTUAL_ENV="$root/.venv" PYTHONPATH="$root/services/launchpad"
exec "$root/.venv/bin/python" -m launchpad.cli "$@"
