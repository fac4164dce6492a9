#!/bin/bash
# Stops the cluster that up.sh started in FOLDER, by its pid files, after cancelling its jobs. Leaves FOLDER/log.
#   tests/slurm/down.sh FOLDER
# SPDX-License-Identifier: BSD-3-Clause
folder=$(realpath -m "${1:?usage: down.sh FOLDER}")
export SLURM_CONF=$folder/etc/slurm.conf

# A daemon that stopped may linger as a zombie.
alive() { [ -r "/proc/$1/stat" ] && [ "$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -c1)" != Z ]; }
stop() { # name, pid file
    [ -s "$2" ] || return 0
    local pid
    pid=$(cat "$2")
    if alive "$pid" && [ "$(cat "/proc/$pid/comm")" = "$1" ]; then
        kill "$pid"
        for _ in $(seq 100); do
            alive "$pid" || break
            sleep 0.1
        done
        alive "$pid" && kill -9 "$pid"
    fi
    rm -f "$2"
}
if [ -s "$folder/run/slurmctld.pid" ] && alive "$(cat "$folder/run/slurmctld.pid")"; then
    mapfile -t jobs < <(timeout 5 squeue -h -o %A | sort -u)
    if [ "${#jobs[@]}" -gt 0 ]; then
        timeout 5 scancel "${jobs[@]}"
        for _ in $(seq 150); do
            [ -n "$(timeout 5 squeue -h)" ] || break
            sleep 0.1
        done
    fi
fi
for file in "$folder"/run/slurmd.*.pid; do
    [ ! -e "$file" ] || stop slurmd "$file"
done
stop slurmctld "$folder/run/slurmctld.pid"
stop munged "$folder/munge/munged.pid"
rm -rf "$folder"/{run,state,spool,tmpfs,node,munge}
