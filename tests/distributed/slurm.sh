#!/usr/bin/env bash
# A Slurm of one node on this machine, for the tests: `slurm.sh start FOLDER`, `slurm.sh stop FOLDER`. Needs root and
# Debian's slurm-wlm and munge. Then `export SLURM_CONF=FOLDER/slurm.conf`.
set -euo pipefail
folder=$(realpath -m "$2")
case "$1" in
  start)
    mkdir -p "$folder/state" "$folder/spool" /run/munge
    chown munge: /run/munge
    [ -s /etc/munge/munge.key ] || { dd if=/dev/urandom bs=1 count=1024 of=/etc/munge/munge.key status=none; chown munge: /etc/munge/munge.key; chmod 400 /etc/munge/munge.key; }
    munge -n > "$folder/munged.theirs" 2> /dev/null || runuser -u munge -- munged
    cat > "$folder/slurm.conf" <<EOF
ClusterName=test
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
AuthInfo=cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
EOF
    export SLURM_CONF="$folder/slurm.conf"
    slurmctld -f "$SLURM_CONF"
    slurmd -f "$SLURM_CONF"
    for _ in $(seq 60); do sinfo -h -o %T 2> /dev/null | grep -q idle && exit 0; sleep 0.5; done
    echo "the node did not become idle; see $folder/*.log" >&2
    exit 1
    ;;
  stop)
    for daemon in slurmd slurmctld; do
      [ ! -s "$folder/$daemon.pid" ] || kill "$(cat "$folder/$daemon.pid")" || true
    done
    [ -s "$folder/munged.theirs" ] || kill "$(cat /run/munge/munged.pid)" || true
    ;;
esac
