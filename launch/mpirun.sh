#!/usr/bin/env bash
# Open MPI only starts the processes; JAX connects them. PROCESSES is how many, HOSTS where, one a host:
#
#     PROCESSES=2 HOSTS=node1,node2 COORDINATOR=node1:61500 launch/mpirun.sh \
#         --config=configs/simfle.py --config.data.path=FACES --workdir=RUN
#
# On one host leave HOSTS and COORDINATOR out. To stop and save: kill -USR1 the mpirun.

# MPIRUN_FLAGS are several words.
# shellcheck disable=SC2086
exec mpirun -n "${PROCESSES:-2}" ${HOSTS:+--host "$HOSTS" --map-by node} ${MPIRUN_FLAGS:-} \
  "${PYTHON:-python}" train.py --distributed=on ${COORDINATOR:+--coordinator="$COORDINATOR"} "$@"
