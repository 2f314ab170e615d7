#!/usr/bin/env bash
# Nextflow from the jars that scripts/setup fetched; installed as .venv/bin/nextflow.
# Without these --add-opens flags everything runs, but -resume silently caches nothing.
set -eu
bin=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
opens=(java.base/java.{lang,io,nio,net,util,util.concurrent.locks,util.concurrent.atomic}
       java.base/sun.{nio.ch,nio.fs,net.www.protocol.http,net.www.protocol.https,net.www.protocol.ftp,net.www.protocol.file}
       java.base/jdk.internal.{misc,vm})
flags=("${opens[@]/#/--add-opens=}"); flags=("${flags[@]/%/=ALL-UNNAMED}")
export PATH="$bin:$PATH"  # the steps run with the Python beside this file, also when the environment is not active
export NXF_CLI="nextflow $*"
exec "${JAVA_HOME:+$JAVA_HOME/bin/}java" -XX:+TieredCompilation -XX:TieredStopAtLevel=1 \
  "${flags[@]}" ${NXF_OPTS:-} -cp "$bin/../nextflow/*" nextflow.cli.Launcher "$@"
