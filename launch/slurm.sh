#!/usr/bin/env bash
# Several nodes under Slurm, one process a node that drives all its GPUs:
#
#     sbatch --nodes=4 launch/slurm.sh --config=configs/simfle.py --config.data.path=FACES --workdir=RUN
#
# RUN and FACES are on a disk that all nodes share. For one process a GPU add --ntasks-per-node=8 --gpus-per-task=1.
#SBATCH --job-name=simfle
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# Two minutes before the time is over Slurm asks the tasks to save and end.
#SBATCH --signal=USR1@120

# Signals are for the tasks; this script waits for them and asks for another turn.
trap : USR1 TERM
srun --kill-on-bad-exit=0 "${PYTHON:-python}" train.py --distributed=on "$@"
status=$?
# 138: ended by USR1, 143: by TERM; both have saved.
if [ $status -eq 138 ] || [ $status -eq 143 ]; then
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
