#!/usr/bin/env bash
# LlamaFlow's own commands beside the pipeline; installed as .venv/bin/llamaflow.
set -eu
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
case ${1:-} in
  import-config | find-subjects)
    step=${1//-/_}
    shift
    exec "$root/.venv/bin/python" "$root/bin/$step.py" "$@" ;;
  "" | -h | --help)
    echo "usage: llamaflow COMMAND [--help]"
    echo
    echo "import-config FILE             turn a training configuration of axolotl or LLaMA-Factory into a params file"
    echo "find-subjects FILE RESULTS...  say which models had seen the data of people who ask to be forgotten" ;;
  *)
    echo "error: llamaflow has no command '$1'. Its commands: import-config, find-subjects. The pipeline itself is started with nextflow run." >&2
    exit 64 ;;
esac
