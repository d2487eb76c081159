#!/bin/bash
#SBATCH --gres=gpu:4 --cpus-per-task=16 --time=24:00:00
#SBATCH --requeue --signal=B:TERM@120
# The last line asks for SIGTERM two minutes before the end; the trap passes it on and puts the job back into the queue.
trap 'kill -TERM $run; wait $run; scontrol requeue $SLURM_JOB_ID' TERM
srun torchrun --nproc-per-node 4 -m ise_fast.train --preset market1501-ise --data-dir data \
  --logs-dir logs/market1501 --resume auto --checkpoint-step 100 --no-progress &
run=$!
wait $run
