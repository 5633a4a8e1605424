#!/usr/bin/env bash
# A SLURM of one node and two CPUs, for tests: slurm.sh start|crowd|restart|vanish|return|stop FOLDER
# (crowd: from now on, until it is restarted, it holds at most three jobs; vanish: its node dies with all that runs there)
# Debian's packages slurm-wlm and munge, as root; all that it keeps lies in FOLDER. Use it with SLURM_CONF=FOLDER/slurm.conf.
set -euo pipefail
action=$1 folder=$2
export SLURM_CONF="$folder/slurm.conf"

controller() { slurmctld -L "$folder/slurmctld.log"; }
end() { # the daemons whose process ids are in these files, and wait
  for file in "$@"; do
    pid=$(cat "$file" 2> /dev/null) || continue
    kill "$pid" 2> /dev/null || continue
    for _ in $(seq 300); do
      kill -0 "$pid" 2> /dev/null || break
      sleep .1
    done
  done
}

case $action in
  start)
    ! pgrep -x slurmd > /dev/null || { echo "a SLURM runs here already" >&2 && exit 1; }
    mkdir -p "$folder"/{state,spool,munge}
    chmod 700 "$folder/munge"
    head -c 64 /dev/urandom > "$folder/munge/key"
    chmod 400 "$folder/munge/key"
    munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munge/pid" \
      --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
    host=$(hostname -s)
    port=$((20000 + $$ % 20000))
    cat > "$SLURM_CONF" << CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmdSpoolDir=$folder/spool
StateSaveLocation=$folder/state
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SchedulerParameters=bf_interval=5,sched_interval=5,sched_min_interval=0
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
    controller
    slurmd -L "$folder/slurmd.log"
    for _ in $(seq 300); do
      [ "$(sinfo -h -o %T 2> /dev/null)" = idle ] && exit 0
      sleep .2
    done
    echo "SLURM did not start; see $folder/slurmctld.log" >&2
    exit 1
    ;;
  crowd | restart)
    end "$folder/slurmctld.pid"
    sed -i '/^M.*Job/d' "$SLURM_CONF"
    # those that have ended count until they are forgotten
    [ "$action" = crowd ] && printf '%s\n' MaxJobCount=3 MinJobAge=2 >> "$SLURM_CONF"
    controller
    ;;
  vanish)
    kill -KILL "$(cat "$folder/slurmd.pid")"
    pkill -KILL -f '^slurmstepd: \['
    for one in $(grep -lz "^SLURM_JOB_ID=" $(grep -lzxF "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ 2> /dev/null)); do
      kill -KILL "${one//[!0-9]/}" 2> /dev/null || true
    done
    scontrol update "node=$(hostname -s)" state=down reason=vanished
    sleep 15 # the controller asks it to end its jobs, and would end those begun there since
    ;;
  return)
    slurmd -L "$folder/slurmd.log"
    for _ in $(seq 300); do
      [ "$(sinfo -h -o %T 2> /dev/null)" = idle ] && exit 0
      sleep .2
    done
    exit 1
    ;;
  stop)
    scancel --quiet --user=root 2> /dev/null || true
    end "$folder/slurmd.pid" "$folder/slurmctld.pid" "$folder/munge/pid"
    ;;
esac
