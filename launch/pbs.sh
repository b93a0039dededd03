#!/bin/bash
# A run under PBS that goes on over as many time limits as it takes.
#
#   qsub launch/pbs.sh                                     as it is, or after you have edited it
#   qsub -v consensus_out=FOLDER launch/pbs.sh             goes on with what an earlier job left in FOLDER
#
#PBS -N consensus
#PBS -l select=2:ncpus=4:mpiprocs=4
#PBS -l walltime=01:00:00
#PBS -j oe

# What to run, on how many ranks (select times mpiprocs), the folder for results, how long to train (walltime less two minutes),
# and this script, which is submitted again; empty for a run without checkpoints.
run=(consensus run digits --set 'checkpoint.every="60 s"' --resume latest)
ranks=8
results=runs
seconds=3480
again=launch/pbs.sh

cd "$PBS_O_WORKDIR" || exit 1
# The folder is named after the first of the jobs and handed on to the next: "latest" is then never another run's.
out=${consensus_out:-$results/job-$PBS_JOBID}

# PBS gives no notice: it sends TERM at the limit, and kills seconds later. --foreground: the signal comes once, not twice,
# for at the second one ranks would end without their last checkpoints.
timeout --foreground --preserve-status --signal=TERM "$seconds" \
  "${run[@]}" --ranks "$ranks" --hostfile "$PBS_NODEFILE" --out "$out"
code=$?

# Whether the run came to its end all the same, by its newest summary: the signal may come when a run has just finished.
through() {
  summary=$(ls -td "$out"/*/ 2>/dev/null | head -n 1)summary.json
  [ -f "$summary" ] && ! grep -q '"ended": "interrupted"' "$summary"
}

# 130: interrupted, by timeout or by qdel. After qdel the job is on its way out, and this shell with it.
if [ "$SECONDS" -ge "$seconds" ] && [ "$code" -eq 130 ]; then
  if through; then
    code=0
  elif [ "$again" ]; then
    echo "the time limit is near: the run goes on from $out in another job"
    qsub -v "consensus_out=$out" "$again" || echo "it could not be submitted; qsub -v consensus_out=$out $again" >&2
  fi
fi
exit "$code"
