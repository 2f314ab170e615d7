#!/bin/sh
# run.sh DIR COMMAND...: run a command, which is Nextflow, and write its exit status to DIR/exit. The launchpad may be gone by then.
# It leads the run's process group, so that all of it can be ended at once.
dir=$1
shift
echo $$ > "$dir/pid"
trap : TERM INT HUP # it is the command that ends; its status is still to be written
if [ -f "$dir/pre_run.sh" ]; then . "$dir/pre_run.sh"; fi
"$@"
status=$?
if [ -f "$dir/post_run.sh" ]; then . "$dir/post_run.sh"; fi
echo $status > "$dir/exit.part"
mv "$dir/exit.part" "$dir/exit"
[ $status = 0 ] && exit
# tasks outlive a Nextflow that was killed: let them save what they have, then end them
trap '' TERM
kill -TERM -$$
waited=0
while [ $waited -lt 20 ]; do
    set -- $(pgrep -g $$)
    [ "$*" = $$ ] && exit # nobody else is left
    sleep 1
    waited=$((waited + 1))
done
kill -KILL -$$
