#!/bin/bash
# Starts a Slurm cluster on this machine: munged, slurmctld and NODES slurmd, each a node of its own name (n1, n2, ...) with its
# own spool, temporary folder and /dev/shm, on loopback only. As root.
#   tests/slurm/up.sh FOLDER     then: . FOLDER/env.sh; sbatch, srun --mpi=pmix, scancel as on any cluster
# NODES (4), CPUS a node (2; more than the machine has is fine), MEMORY a node in MB (4000), PORT (16817; and 105 above it).
# SPDX-License-Identifier: BSD-3-Clause
set -eu
folder=$(realpath -m "${1:?usage: up.sh FOLDER}")
nodes=${NODES:-4} cpus=${CPUS:-2} memory=${MEMORY:-4000} port=${PORT:-16817}
host=$(hostname -s)
fail() {
    echo "up.sh: error: $*" >&2
    exit 1
}
[ "$(id -u)" -eq 0 ] || fail "must run as root (unshare --uts --mount)"
for program in munged mungekey slurmctld slurmd sbatch unshare; do
    command -v $program >/dev/null || fail "there is no $program (Debian: slurm-wlm munge)"
done
[ ! -e "$folder/run" ] || fail "$folder/run exists: stop what runs there with down.sh"

umask 022
mkdir -p "$folder"/{etc,run,log,state,spool,tmpfs}
mkdir -m 700 "$folder/munge"
{
    echo "127.0.0.1 localhost $host"
    for i in $(seq "$nodes"); do echo "127.0.0.1 n$i"; done
} >"$folder/etc/hosts"
for i in $(seq "$nodes"); do
    mkdir -p "$folder/node/n$i/spool" "$folder/node/n$i/tmp"
    chmod 1777 "$folder/node/n$i/tmp"
done

# SlurmctldHost must be the real short name; the address in brackets keeps it on loopback. cred_expire is also how long a
# requeued job waits. Slurm 22.05's PMIx fence is no barrier when TreeWidth exceeds a step's nodes. config_overrides lets a
# node claim more than the machine has.
cat >"$folder/etc/slurm.conf" <<CONF
ClusterName=longspan
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$folder/munge.sock,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
TmpFS=$folder/tmpfs
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/slurmd.%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.%n.log
SlurmctldDebug=info
SlurmdDebug=info
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/none
MpiDefault=pmix
TreeWidth=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=$((memory / cpus))
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
PriorityType=priority/basic
KillWait=5
OverTimeLimit=0
MinJobAge=3600
JobRequeue=1
EnforcePartLimits=ALL
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=n[1-$nodes] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$((port + 101))-$((port + 100 + nodes))] CPUs=$cpus Boards=1 SocketsPerBoard=1 CoresPerSocket=$cpus ThreadsPerCore=1 RealMemory=$memory State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES DefaultTime=5 MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$folder/etc/slurm.conf

# All nodes share this machine's cores: nothing is bound, an idle rank yields.
cat >"$folder/env.sh" <<ENV
export SLURM_CONF=$SLURM_CONF
export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader,tcp OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_oob_tcp_if_include=lo
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
ENV

mungekey --create --keyfile="$folder/munge/munge.key"
munged --key-file="$folder/munge/munge.key" --socket="$folder/munge.sock" --pid-file="$folder/munge/munged.pid" \
    --log-file="$folder/munge/munged.log" --seed-file="$folder/munge/munged.seed"
slurmctld -f "$SLURM_CONF"
for i in $(seq "$nodes"); do
    # shellcheck disable=SC2016 # the inner shell expands
    unshare --uts --mount sh -ec '
        hostname "$1"
        mount --bind "$2/etc/hosts" /etc/hosts
        mount --bind "$2/node/$1/spool" "$2/spool"
        mount --bind "$2/node/$1/tmp" "$2/tmpfs"
        mount -t tmpfs -o mode=1777 shm /dev/shm
        exec slurmd -N "$1" -f "$2/etc/slurm.conf"' sh "n$i" "$folder"
done
idle() { sinfo -h -N -t idle -o %N 2>/dev/null | sort -u | wc -l; }
for _ in $(seq 300); do
    [ "$(idle)" -lt "$nodes" ] || break
    sleep 0.1
done
[ "$(idle)" -eq "$nodes" ] || fail "not all nodes came up; see $folder/log"
